"""The blueprints: graphs that are one node. One function each."""

from .restoration import FEW_STEPS, Restoration


def _blueprint(library, note, aliases, enlarge=False, few_steps=False):
    g = Restoration(library, note, aliases)
    g.image, g.mask = g.end("photo", "IMAGE"), g.end("mask", "MASK", "mask (optional)")
    if enlarge:
        g.group("1 Photo")
        scaled = g.add("ImageScaleBy", image=g.image, upscale_method="bicubic", scale_by=2.0)
        g.promote(scaled, "scale_by", "times_larger")
        g.image = scaled[0]
    g.models_of()
    g.group("3 Settings")
    g.encode()
    g.prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    if few_steps:
        g.model = g.add("LoraLoaderModelOnly", "The few-step model", model=g.model, lora_name=FEW_STEPS, strength_model=1.0)
    restorer = g.add("FluxIRApplyAdapter", model=g.model, adapter=g.adapter, degraded=g.latent)
    tiled = g.add("FluxIRTileModel", model=restorer)
    model = g.add("FluxIRRestorationFidelity", model=tiled, degraded=g.latent, fidelity=0.0)
    g.promote(restorer, "strength")
    g.promote(model, "fidelity")
    return g, model


def _with_detail(g, samples):
    """The finished photo with the fine detail that the VAE could not hold."""
    detailed = g.add("FluxIRGiveBackDetail", restored=g.decode(samples), degraded=g.image, vae=g.vae, strength=0.5)
    g.promote(detailed, "strength", "detail")
    return detailed


def restore_photo(library):
    g, model = _blueprint(
        library,
        "Restores a photo of any size with the small model that comes with the pack. detail gives back fine detail that the model "
        "cannot hold. For FLUX.1-dev open it and choose its files.",
        ["restore", "denoise", "repair", "enhance", "fluxir"],
    )
    samples = g.sample(model)
    g.promote(samples, "seed")
    g.group("4 Result")
    g.result("IMAGE", _with_detail(g, samples))
    return g


def restore_photo_by_search(library):
    g, model = _blueprint(
        library,
        "Restores a photo of any size and searches for the best result. The budget says how often the model may run: quick up "
        "to 3 times as often as for a normal result, balanced 5 times, thorough 15 times. chart draws the search.",
        ["restore", "best of n", "search", "better quality", "fluxir"],
    )
    g.searcher({"steps": 20, "denoise": 1.0}, model, g.prompt)
    g.promote(g.search, "preset", "budget")
    g.promote(g.noise, "noise_seed", "seed")
    g.group("4 Result")
    g.result("IMAGE", _with_detail(g, g.search))
    candidates = g.decode(g.search[1], "Decode the final candidates")
    g.result("chart", g.add("FluxIRSearchReportChart", report=g.search[2], final_candidates=candidates))
    return g


def upscale_photo(library):
    g, model = _blueprint(
        library,
        "Makes a photo larger and restores it, with the small model that comes with the pack. A large result is made in tiles. For "
        "FLUX.1-dev open it and choose its files.",
        ["upscale", "enlarge", "super resolution", "fluxir"],
        enlarge=True,
    )
    samples = g.sample(model)
    g.promote(samples, "seed")
    g.group("4 Result")
    g.result("IMAGE", g.decode(samples))
    return g


def denoise(library):
    g, model = _blueprint(
        library,
        "Removes noise and JPEG damage from a photo of any size in four steps, with the small model that comes with the pack. detail "
        "gives back fine detail that the model cannot hold.",
        ["denoise", "remove noise", "jpeg artifacts", "fast", "fluxir"],
        few_steps=True,
    )
    noise = g.add("RandomNoise", noise_seed=0)
    samples = g.add(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=g.add("BasicGuider", model=model, conditioning=g.prompt),
        sampler=g.add("KSamplerSelect", sampler_name="euler"),
        sigmas=g.add("FluxIRDistilledSigmas", file_name=FEW_STEPS, steps=4),
        latent_image=g.latent,  # the student may start below pure noise
    )
    g.promote(noise, "noise_seed", "seed")
    g.group("4 Result")
    g.result("IMAGE", _with_detail(g, samples))
    return g
