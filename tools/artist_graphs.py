"""The graphs in which an artist is the judge: by choosing, and by what was learned from the choices."""

from .restoration import OWN_PHOTO, Restoration

CANDIDATES = 4


def _searched(g, photo, prefix, judge):
    """A photo restored CANDIDATES times, of which the verifier that `judge(graph)` adds takes one."""
    g.photo_of(photo)
    g.models_of()
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    verifier = judge(g)
    algorithm = g.add("FluxIREvolutionarySearch", f"{CANDIDATES} candidates", parents=CANDIDATES, children=0, rounds=0)
    g.searcher({"steps": 8, "denoise": 1.0}, model, prompt, verifier=verifier, search=algorithm)
    g.group("4 Result")
    g.show(g.decode(g.search), prefix)
    return g


def choose(library):
    g = Restoration(
        library,
        f"## Choose yourself\n\nPress Run. {OWN_PHOTO}\n\nAfter a while the candidates stand beside your photo: click the best, or "
        "press its number. Z enlarges them. If you do not choose in time, the verifier does.\n\nSwitch on *keep_choices* in **Choose "
        "Yourself**, and **My Taste** learns from what you choose. Nothing leaves your computer.\n\nAnother *noise_seed* gives other "
        f"candidates. More than {CANDIDATES}? Change *parents* in **Evolutionary Search**.",
    )

    def judge(g):
        natural = g.add("FluxIRNaturalImageVerifier")
        return g.add("FluxIRChooseYourself", verifier=natural)

    return _searched(g, "fluxir_room_dark.jpg", "chosen", judge)


def taste(library):
    g = Restoration(
        library,
        f"## Judge by my taste\n\nPress Run. {OWN_PHOTO}\n\n**My Taste** weighs the verifier's scores as your choices tell: make some in "
        "*25 Choose yourself*, with *keep_choices* on. Until it knows your taste it says so, and the verifier judges "
        "alone.\n\nIn **Verifier Ensemble** it has one vote and the verifier has another. *save_as* writes a file that you can share.",
    )

    def judge(g):
        natural = g.add("FluxIRNaturalImageVerifier")
        own = g.add("FluxIRMyTaste", verifier=natural)
        g.add("PreviewAny", "What it knows", source=own[1])
        return g.add("FluxIRVerifierEnsemble", **{"verifiers.verifier0": natural, "verifiers.verifier1": own})

    return _searched(g, "fluxir_stream_damaged.jpg", "tasted", judge)
