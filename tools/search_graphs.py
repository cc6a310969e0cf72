"""The graphs in which the small model searches for the best result: one function each."""

from .restoration import FEW_STEPS, OWN_PHOTO, Restoration


def search(library):
    g = Restoration(
        library,
        f"## Search for the best result\n\nPress Run. {OWN_PHOTO}\n\n**TTS Sampler (test-time search)** tries variants and keeps what "
        "the verifier likes best. You never get something it likes less than the normal result.\n\n**Budget Plan** says what the "
        "search costs. To run it alone, press the play button above it.",
    )
    g.photo_of("fluxir_stream_damaged.jpg")
    g.models_of()
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    g.searcher({"steps": 20, "denoise": 1.0}, model, prompt)
    g.add(
        "FluxIRBudgetPlan",
        sigmas=g.sigmas,
        preset="quick",
        guider=g.guider,
        latent_image=g.latent[1],
        vae=g.vae,
        verifier=g.verifier,
    )
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, "searched")
    g.drawn()
    return g


def _own_search(library, photo, prefix, note, make):
    """A search of the artist's own: `make(graph)` adds its node."""
    g = Restoration(
        library,
        f"{note}\n\nPress Run. {OWN_PHOTO}\n\nThe numbers are small, so that it is quick: more of each find better results.",
    )
    g.photo_of(photo)
    g.models_of()
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    natural = g.add("FluxIRNaturalImageVerifier")
    clip = g.add(
        "FluxIRCLIPScoreVerifier",
        "CLIP-Score Verifier (muted)",
        mode=2,
        model="clip-vit-large-patch14",
        prompt="a sharp, detailed photo",
    )
    verifier = g.add("FluxIRVerifierEnsemble", **{"verifiers.verifier0": natural, "verifiers.verifier1": clip})
    algorithm = make(g, prompt)
    g.searcher({"steps": 8, "denoise": 1.0}, model, prompt, verifier=verifier, search=algorithm)
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, prefix)
    g.drawn()
    return g


def _stepwise(g, _prompt):
    return g.add("FluxIRStepwiseSearch", children=3, window=0.9)


def _evolutionary(g, prompt):
    student = g.add("LoraLoaderModelOnly", "The few-step model", model=g.model, lora_name=FEW_STEPS, strength_model=1.0)
    adapted = g.adapt(student, tiles=False, title="Apply FluxIR Adapter to it")
    guider = g.add("BasicGuider", "The few-step model's guider", model=adapted, conditioning=prompt)
    sigmas = g.add("FluxIRDistilledSigmas", file_name=FEW_STEPS, steps=2)
    return g.add(
        "FluxIREvolutionarySearch",
        children=2,
        rounds=2,
        look_ahead="large steps",
        look_ahead_steps=2,
        student=guider,
        student_sigmas=sigmas,
    )


def _particles(g, _prompt):
    return g.add("FluxIRParticleSearch", method="resampling", particles=4, rounds=2)


def stepwise(library):
    note = "## Step by step\n\n**Stepwise Search** tries a few noisy variants of every step and goes on with the best."
    return _own_search(library, "fluxir_dogs_noisy.jpg", "stepwise", note, _stepwise)


def evolutionary(library):
    note = (
        "## Evolution\n\n**Evolutionary Search** lets variants compete at some steps, judged by how they would end. A few-step model "
        "shows that in two large steps; without it the slow model looks ahead itself."
    )
    return _own_search(library, "fluxir_brushes_jpeg.jpg", "evolution", note, _evolutionary)


def particles(library):
    note = "## Particles\n\n**Particle Search** samples many images at once and copies the promising ones."
    return _own_search(library, "fluxir_stream_damaged.jpg", "particles", note, _particles)
