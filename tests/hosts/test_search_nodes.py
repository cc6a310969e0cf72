"""The search nodes in the real ComfyUI of this process, on a tiny FLUX."""

import json

import pytest
import torch

from comfyui_fluxir.fluxir_core.flow import PRESETS, plan

from .comfy_host import Host, picture, prompt

STEPS = 6


@pytest.fixture(scope="module")
def host(comfy, tmp_path_factory):
    return Host(tmp_path_factory.mktemp("search"), excitation=0.1)


@pytest.fixture(scope="module")
def vae(host):
    import comfy.sd
    import comfy.utils

    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(host.paths["vae"])))


class Calls:
    """A model whose calls are counted: rows, and times."""

    def __init__(self, model):
        self.model, self.rows = model.clone(), []
        self.model.set_model_unet_function_wrapper(self._count)

    def _count(self, function, arguments):
        self.rows.append(len(arguments["input"]))
        return function(arguments["input"], arguments["timestep"], **arguments["c"])


def guider(model, positive=None, negative=None, cfg=1.0):
    from comfy.samplers import CFGGuider

    made = CFGGuider(model)
    made.set_conds(positive or prompt(3), negative or positive or prompt(3))
    made.set_cfg(cfg)
    return made


def sigmas(steps=STEPS, start=1.0):
    return torch.linspace(start, 0, steps + 1)


def noise(seed=7):
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    return Noise_RandomNoise(seed)


class Judge:
    """A verifier that likes bright pictures."""

    name = "bright"

    def __call__(self, pictures, reference=None):
        return pictures.mean((1, 2, 3)).float()


def verifier(*members):
    from comfyui_fluxir.fluxir_core.verify import Ensemble
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    return LoadedVerifier(Ensemble(members or (Judge(),)))


def run(host, vae, model=None, latent=None, steps=None, cfg=1.0, preset="fast", positive=None, negative=None, judge=None, **options):
    """(latent dict, finalists dict, report) of the TTS Sampler node."""
    from comfyui_fluxir.nodes.search import TTSSampler

    model = model or host.model
    latent = latent or {"samples": torch.zeros(1, 16, 8, 8)}
    steps = sigmas() if steps is None else steps
    with torch.inference_mode():
        out = TTSSampler.execute(noise(), guider(model, positive, negative, cfg), steps, latent, vae, judge or verifier(), preset, **options)
    best, finalists, report = out.result
    return best, finalists, json.loads(report)


def plain(host, model=None, latent=None, steps=None, cfg=1.0, positive=None, negative=None):
    """SamplerCustomAdvanced with core's Euler sampler."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    model = model or host.model
    latent = latent or {"samples": torch.zeros(1, 16, 8, 8)}
    steps = sigmas() if steps is None else steps
    with torch.inference_mode():
        made = SamplerCustomAdvanced.execute(
            noise(), guider(model, positive, negative, cfg), comfy.samplers.sampler_object("euler"), steps, latent
        )
    return made.result[0]["samples"]


def masked(batch=1):
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    return {"samples": picture(5, batch), "noise_mask": mask}


@pytest.mark.parametrize("case", ["text to image", "cfg", "image to image", "mask", "batch"])
def test_a_search_of_nothing_is_cores_euler_sampler_bit_for_bit(host, vae, case):
    from comfyui_fluxir.fluxir_core.flow.lineages import Lineages

    options = {
        "text to image": {},
        "cfg": {"cfg": 3.0, "negative": prompt(9, tokens=5)},
        "image to image": {"latent": {"samples": picture(5)}, "steps": sigmas(5, 0.6)},
        "mask": {"latent": masked()},
        "batch": {"latent": {"samples": torch.zeros(3, 16, 8, 8)}},
    }[case]
    best, _, report = run(host, vae, schedule=Lineages(1, 0), **options)
    assert torch.equal(best["samples"], plain(host, **options))
    assert report["nfe"] == report["nfe_planned"] == len(options.get("steps", sigmas())) - 1


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_finds_something_the_verifier_likes_better_and_pays_what_was_planned(host, vae, name):
    counted = Calls(host.model)
    best, finalists, report = run(host, vae, model=counted.model, preset=name)
    planned = plan(PRESETS[name], sigmas())
    assert sum(counted.rows) == report["nfe"] <= planned["nfe"] and report["nfe"] >= planned["nfe_least"]
    assert report["verifications"] <= planned["verifications"]

    def bright(samples):
        return vae.decode(samples).mean((1, 2, 3))

    assert (bright(best["samples"]) >= bright(plain(host)) - 1e-4).all()
    if name not in ("fast", "best"):  # with random weights the estimate they go by says nothing of the end
        assert (bright(best["samples"]) > bright(plain(host)) + 1e-4).all()
    assert finalists["samples"].shape[1:] == best["samples"].shape[1:] and report["preset"] == name


def test_the_plain_sample_is_the_last_finalist(host, vae):
    _, finalists, report = run(host, vae, preset="best_of_n")
    torch.testing.assert_close(finalists["samples"][-1:], plain(host), atol=1e-4, rtol=1e-4)
    assert len(finalists["samples"]) == 16


@pytest.mark.parametrize("case", ["cfg", "image to image", "mask", "batch"])
def test_searches_keep_to_cfg_masks_denoise_and_batches(host, vae, case):
    options = {
        "cfg": {"cfg": 3.0, "negative": prompt(9, tokens=5)},
        "image to image": {"latent": {"samples": picture(5)}, "steps": sigmas(5, 0.6)},
        "mask": {"latent": masked(2)},
        "batch": {"latent": {"samples": torch.zeros(3, 16, 8, 8)}},
    }[case]
    best, _, report = run(host, vae, preset="paper", **options)
    base = plain(host, **options)
    assert best["samples"].shape == base.shape and best["samples"].isfinite().all()
    assert (vae.decode(best["samples"]).mean((1, 2, 3)) >= vae.decode(base).mean((1, 2, 3)) - 1e-4).all()
    if case == "mask":
        kept = options["latent"]["samples"][..., :4]
        torch.testing.assert_close(best["samples"][..., :4], kept, atol=1e-4, rtol=1e-4)
        assert (best["samples"][..., 4:] - kept).abs().max() > 0.1


def test_each_picture_of_a_batch_is_restored_from_its_own_input(host, vae):
    """The adapter's degraded latents are tiled over the candidates: picture for picture as if sampled alone."""
    lq = picture(1, batch=2)
    both, _, _ = run(host, vae, model=host.apply(lq=lq), latent={"samples": torch.zeros(2, 16, 8, 8)}, preset="best_of_n")
    drawn = noise().generate_noise({"samples": torch.zeros(2, 16, 8, 8)})

    class Second:
        seed = 7

        def generate_noise(self, latent):
            return drawn[1:]

    from comfyui_fluxir.nodes.search import TTSSampler

    with torch.inference_mode():
        alone = TTSSampler.execute(
            Second(), guider(host.apply(lq=lq[1:])), sigmas(),
            {"samples": torch.zeros(1, 16, 8, 8), "batch_index": [1]}, vae, verifier(), "best_of_n",
        ).result[0]["samples"]  # fmt: skip
    torch.testing.assert_close(both["samples"][1:], alone, atol=2e-4, rtol=1e-3)


def test_the_sampler_form_gives_the_same_picture(host, vae):
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    from comfyui_fluxir.nodes.search import TTSSamplerSelect

    with torch.inference_mode():
        sampler = TTSSamplerSelect.execute(vae, verifier(), "paper").result[0]
        out, denoised = SamplerCustomAdvanced.execute(
            noise(), guider(host.model), sampler, sigmas(), {"samples": torch.zeros(1, 16, 8, 8)}
        ).result
    best, _, _ = run(host, vae, preset="paper")
    assert torch.equal(out["samples"], best["samples"])
    torch.testing.assert_close(denoised["samples"], best["samples"], atol=1e-5, rtol=1e-5)


def test_the_same_search_twice_is_bit_for_bit_the_same(host, vae):
    (first, _, report), (second, _, again) = (run(host, vae, preset="fast") for _ in range(2))
    assert torch.equal(first["samples"], second["samples"]) and report == again


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
    """A model that is cancelled by the artist at its call number `after`."""
    import comfy.model_management

    model, calls = host.model.clone(), []

    def call(function, arguments):
        calls.append(1)
        if len(calls) == after:
            comfy.model_management.interrupt_current_processing()
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(call)
    return model


def test_cancelling_stops_the_graph_and_leaves_comfyui_as_it_was(host, vae):
    import comfy.model_management

    before = run(host, vae)[0]["samples"]
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(host, vae, model=interrupted(host, 8), preset="paper")
    assert not comfy.model_management.processing_interrupted()
    assert torch.equal(run(host, vae)[0]["samples"], before)


def test_cancelling_can_keep_the_best_so_far(host, vae):
    import comfy.model_management

    best, _, report = run(host, vae, model=interrupted(host, 13), preset="paper", keep_best=True)
    assert report["stopped"] and len(report["log"]) >= 1 and best["samples"].isfinite().all()
    assert not comfy.model_management.processing_interrupted()
    with pytest.raises(comfy.model_management.InterruptProcessingException):  # nothing was scored yet
        run(host, vae, model=interrupted(host, 2), preset="paper", keep_best=True)


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

    def __call__(self, pictures, reference=None):
        raise RuntimeError("no weights")


class Constant:
    name = "constant"

    def __call__(self, pictures, reference=None):
        return torch.full((len(pictures),), self.value)

    def __init__(self, value=0.0):
        self.value = value


def test_a_broken_verifier_is_left_out_and_one_that_decides_nothing_leaves_the_plain_sample(host, vae):
    with_broken = run(host, vae, judge=verifier(Judge(), Fails()), preset="paper")[0]["samples"]
    assert torch.equal(with_broken, run(host, vae, preset="paper")[0]["samples"])
    for value in (0.0, float("nan")):
        best, _, report = run(host, vae, judge=verifier(Constant(value)), preset="fast")
        torch.testing.assert_close(best["samples"], plain(host), atol=1e-4, rtol=1e-4)
        assert report["winner"] == [-1]
    with pytest.raises(ValueError, match="every verifier failed: fails .no weights.; choose others"):
        run(host, vae, judge=verifier(Fails()))


def test_the_real_decoder_judges_the_finalists_only(host, vae):
    decoded = []

    class Final:
        def decode(self, latents):
            decoded.append(len(latents))
            return vae.decode(latents)

    _, _, report = run(host, vae, preset="fast", final_vae=Final())
    assert decoded == [1, 1]
    assert report["verifications"] == plan(PRESETS["fast"], sigmas(), finish=True)["verifications"]


def test_the_degraded_picture_keeps_the_search_near_it(host, vae):
    """The verifier likes bright pictures only; the fidelity guard refuses those that leave the input."""
    base = vae.decode(plain(host))
    _, _, free = run(host, vae, preset="best_of_n")
    _, _, near = run(host, vae, preset="best_of_n", degraded=base)
    assert free["winner"] != [-1] and near["winner"] in ([-1], [0])


def test_bad_input_is_refused_with_one_sentence(host, vae):
    nan = {"samples": torch.full((1, 16, 8, 8), float("nan"))}
    with pytest.raises(ValueError, match="TTS Sampler: latent_image holds NaN or infinity; encode"):
        run(host, vae, latent=nan)
    with pytest.raises(ValueError, match="TTS Sampler: TTS: the last sigma is .*; a search needs the whole way to 0"):
        run(host, vae, steps=sigmas()[:3])
    with pytest.raises(ValueError, match="TTS Sampler: the sigmas hold no step"):
        run(host, vae, steps=sigmas()[:1])
    with pytest.raises(ValueError, match="TTS Sampler: 2 degraded pictures for a sampled batch of 3; give one, or one each"):
        run(host, vae, latent={"samples": torch.zeros(3, 16, 8, 8)}, degraded=torch.zeros(2, 64, 64, 3))


def test_a_model_that_is_no_flow_model_is_refused(host, vae):
    import comfy.model_sampling

    class Eps(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    model = host.model.clone()
    model.add_object_patch("model_sampling", Eps(model.model.model_config))
    with pytest.raises(ValueError, match="TTS Sampler: the model is a Flux of another kind than flow matching; use a flow"):
        run(host, vae, model=model, steps=torch.tensor([14.0, 7.0, 0.0]))


def test_a_model_that_returns_nan_is_named(host, vae):
    model = host.model.clone()
    model.set_model_unet_function_wrapper(lambda f, a: torch.full_like(a["input"], float("nan")))
    with pytest.raises(ValueError, match="TTS Sampler: the model returned NaN or infinity; use a data type"):
        run(host, vae, model=model)


def test_another_flow_model_is_searched_alike(comfy, vae, tmp_path):
    """FLUX.1-schnell's kind: no guidance, another time shift."""
    from dataclasses import replace

    import comfy.sd
    from safetensors.torch import save_file

    from .tiny import TINY, flux_weights

    save_file(flux_weights(replace(TINY, guidance_embed=False)), tmp_path / "schnell.safetensors")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "schnell.safetensors"))

    class Schnell:
        pass

    host = Schnell()
    host.model = model
    best, _, report = run(host, vae, preset="paper")
    base = plain(host)
    assert model.model.model_type.name == "FLOW" and report["winner"] != [-1]
    assert vae.decode(best["samples"]).mean() > vae.decode(base).mean()
