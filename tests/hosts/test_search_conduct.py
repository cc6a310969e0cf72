"""How the TTS Sampler behaves: memory, canceling, previews, broken verifiers, bad input."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost

from .search_host import Judge, baseline, run, sigmas, verifier


def test_when_memory_runs_out_fewer_candidates_share_a_call(host, vae):
    model = host.model.clone()

    def crowded(function, arguments):
        if len(arguments["input"]) > 2:
            raise torch.cuda.OutOfMemoryError("pretended")
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(crowded)
    best, _, report = run(host, vae, model=model, preset="best_of_n")
    assert report["at_once"] == 2
    torch.testing.assert_close(best["samples"], run(host, vae, preset="best_of_n")[0]["samples"], atol=2e-4, rtol=1e-3)


def interrupted(host, after):
    """A model that is canceled by the artist at its call number `after`."""
    import comfy.model_management

    model, calls = host.model.clone(), []

    def call(function, arguments):
        calls.append(1)
        if len(calls) == after:
            comfy.model_management.interrupt_current_processing()
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(call)
    return model


def test_canceling_stops_the_graph_and_leaves_comfyui_as_it_was(host, vae):
    import comfy.model_management

    before = run(host, vae)[0]["samples"]
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(host, vae, model=interrupted(host, 8), preset="paper")
    assert not comfy.model_management.processing_interrupted()
    assert torch.equal(run(host, vae)[0]["samples"], before)


def test_canceling_can_keep_the_best_so_far(host, vae):
    import comfy.model_management

    best, _, report = run(host, vae, model=interrupted(host, 13), preset="paper", keep_best=True)
    assert report["stopped"] and len(report["log"]) >= 1 and best["samples"].isfinite().all()
    assert not comfy.model_management.processing_interrupted()
    with pytest.raises(comfy.model_management.InterruptProcessingException):  # nothing was scored yet
        run(host, vae, model=interrupted(host, 2), preset="paper", keep_best=True)


@pytest.mark.parametrize("where", ["decoding", "scoring", "showing"])
def test_canceling_outside_the_model_keeps_the_best_too(host, vae, monkeypatch, where):
    import comfy.model_management
    import comfy.utils

    rounds = []

    def cancel_in_the_second(*_, **__):
        rounds.append(1)
        if len(rounds) == 2:
            comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()

    class Cancels(Judge):
        def __call__(self, images, reference=None):
            cancel_in_the_second()
            return super().__call__(images, reference)

    class Decoder:
        def decode(self, latents):
            cancel_in_the_second()
            return vae.decode(latents)

    judge, decoder = (verifier(Cancels()) if where == "scoring" else verifier()), (Decoder() if where == "decoding" else vae)
    if where == "showing":
        hook = lambda value, total, preview, **_: preview and cancel_in_the_second()
        monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    best, _, report = run(host, decoder, judge=judge, preset="quick", keep_best=True)
    assert report["stopped"] and len(rounds) == 2 and best["samples"].isfinite().all()
    assert not comfy.model_management.processing_interrupted()


def test_what_samples_is_brought_back_with_room_for_a_call_once_a_round(host, vae, monkeypatch):
    """Decoders and verifiers may displace the model; core's own preparation reserves memory for the candidates at once."""
    import comfy.sampler_helpers

    prepared, prepare = [], comfy.sampler_helpers.prepare_sampling

    def counted(model, shape, *args, **kwargs):
        prepared.append(tuple(shape))
        return prepare(model, shape, *args, **kwargs)

    monkeypatch.setattr(comfy.sampler_helpers, "prepare_sampling", counted)
    latent = {"samples": torch.zeros(2, 16, 8, 8)}
    _best, _, report = run(host, vae, latent=latent, preset="quick")
    rounds = len(report["log"])
    assert prepared == [(2, 16, 8, 8)] + rounds * [(2 * report["at_once"], 16, 8, 8)]


def test_an_empty_latent_of_another_scale_is_sampled_at_the_size_that_was_meant(host, vae):
    """Core's Empty Latent Image is of eighths; a model of sixteenths gets half as many."""
    model = host.model.clone()
    coarse = type("Sixteenths", (type(model.get_model_object("latent_format")),), {"spacial_downscale_ratio": 16})
    model.add_object_patch("latent_format", coarse())
    best, _, _ = run(host, vae, model=model, latent={"samples": torch.zeros(1, 4, 16, 16), "downscale_ratio_spacial": 8})
    assert best["samples"].shape[-2:] == (8, 8)


def test_the_node_shows_a_montage_of_the_candidates(host, vae, monkeypatch):
    import comfy.utils

    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: shown.append((value, total, preview)))
    _, _, report = run(host, vae, preset="paper")
    previews = [preview for _, _, preview in shown if preview]
    assert len(previews) == len(report["log"]) and previews[0][0] == "JPEG" and previews[0][1].width == 512
    assert shown[-1][0] == shown[-1][1] == report["nfe"]


class Fails:
    name = "fails"

    def __call__(self, images, reference=None):
        raise RuntimeError("no weights")


class Constant:
    name = "constant"

    def __call__(self, images, reference=None):
        return torch.full((len(images),), self.value)

    def __init__(self, value=0.0):
        self.value = value


def test_a_broken_verifier_is_left_out_and_one_that_decides_nothing_leaves_the_plain_sample(host, vae):
    with_broken = run(host, vae, judge=verifier(Judge(), Fails()), preset="paper")[0]["samples"]
    assert torch.equal(with_broken, run(host, vae, preset="paper")[0]["samples"])
    for value in (0.0, float("nan")):
        best, _, report = run(host, vae, judge=verifier(Constant(value)), preset="quick")
        torch.testing.assert_close(best["samples"], baseline(host), atol=1e-4, rtol=1e-4)
        assert report["winner"] == [-1]
    with pytest.raises(ValueError, match="every verifier failed: fails .no weights.; choose others"):
        run(host, vae, judge=verifier(Fails()))


def test_the_real_decoder_judges_the_finalists_only(host, vae):
    decoded = []

    class Final:
        def decode(self, latents):
            decoded.append(len(latents))
            return vae.decode(latents)

    _, _, report = run(host, vae, preset="quick", final_vae=Final())
    assert decoded == [1, 1]
    assert report["verifications"] == estimate_cost(PRESETS["quick"], sigmas(), finish=True)["verifications"]


def test_the_degraded_image_keeps_the_search_near_it(host, vae):
    """The verifier likes bright images only; the fidelity check refuses those that leave the input."""
    base = vae.decode(baseline(host))
    _, _, free = run(host, vae, preset="best_of_n")
    _, _, near = run(host, vae, preset="best_of_n", degraded=base)
    assert free["winner"] != [-1] and near["winner"] in ([-1], [0])


def test_bad_input_is_refused_with_one_sentence(host, vae):
    nan = {"samples": torch.full((1, 16, 8, 8), float("nan"))}
    with pytest.raises(ValueError, match=r"TTS Sampler \(test-time search\): latent_image holds NaN or infinity; encode"):
        run(host, vae, latent=nan)
    with pytest.raises(
        ValueError, match=r"TTS Sampler \(test-time search\): the last sigma is .*; a search needs the whole way to 0"
    ):
        run(host, vae, steps=sigmas()[:3])
    with pytest.raises(ValueError, match=r"TTS Sampler \(test-time search\): the sigmas hold no step"):
        run(host, vae, steps=sigmas()[:1])
    with pytest.raises(
        ValueError, match=r"TTS Sampler \(test-time search\): 2 degraded images for a sampled batch of 3; give one, or one each"
    ):
        run(host, vae, latent={"samples": torch.zeros(3, 16, 8, 8)}, degraded=torch.zeros(2, 64, 64, 3))


def test_a_model_that_is_no_flow_model_is_refused(host, vae):
    import comfy.model_sampling

    class Eps(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    model = host.model.clone()
    model.add_object_patch("model_sampling", Eps(model.model.model_config))
    with pytest.raises(
        ValueError, match=r"TTS Sampler \(test-time search\): the model is of another kind than flow matching; use a flow"
    ):
        run(host, vae, model=model, steps=torch.tensor([14.0, 7.0, 0.0]))


def test_a_model_that_returns_nan_is_named(host, vae):
    model = host.model.clone()
    model.set_model_unet_function_wrapper(lambda f, a: torch.full_like(a["input"], float("nan")))
    with pytest.raises(ValueError, match=r"TTS Sampler \(test-time search\): the model returned NaN or infinity; use a data type"):
        run(host, vae, model=model)
