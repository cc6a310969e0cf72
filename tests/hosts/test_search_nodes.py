"""The TTS Sampler in the real ComfyUI of this process: what it samples, on a tiny FLUX."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost

from .comfy_host import prompt, random, random_latent
from .search_host import Calls, baseline, guider, noise, run, sigmas, verifier


def masked(batch=1):
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    return {"samples": random_latent(5, batch), "noise_mask": mask}


@pytest.mark.parametrize("case", ["text to image", "cfg", "image to image", "mask", "batch"])
def test_a_search_of_nothing_is_cores_euler_sampler_bit_for_bit(host, vae, case):
    from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch

    options = {
        "text to image": {},
        "cfg": {"cfg": 3.0, "negative": prompt(9, tokens=5)},
        "image to image": {"latent": {"samples": random_latent(5)}, "steps": sigmas(5, 0.6)},
        "mask": {"latent": masked()},
        "batch": {"latent": {"samples": torch.zeros(3, 16, 8, 8)}},
    }[case]
    best, _, report = run(host, vae, search=EvolutionarySearch(1, 0), **options)
    assert torch.equal(best["samples"], baseline(host, **options))
    assert report["nfe"] == report["nfe_planned"] == len(options.get("steps", sigmas())) - 1


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_finds_something_the_verifier_likes_better_and_pays_what_was_planned(host, vae, name):
    counted = Calls(host.model)
    best, finalists, report = run(host, vae, model=counted.model, preset=name)
    planned = estimate_cost(PRESETS[name], sigmas())
    assert sum(counted.rows) == report["nfe"] <= planned["nfe"] and report["nfe"] >= planned["nfe_least"]
    assert report["verifications"] <= planned["verifications"]

    def bright(samples):
        return vae.decode(samples).mean((1, 2, 3))

    if report["winner"] == [-1]:  # with random weights the estimate that these go by says nothing of the end
        assert name in ("quick", "balanced", "thorough", "smc")
        torch.testing.assert_close(best["samples"], baseline(host), atol=1e-4, rtol=1e-4)
    else:
        assert (bright(best["samples"]) > bright(baseline(host)) + 1e-4).all()
    if name != "paper_s9":  # which compares nothing in the end
        assert list(report["held_out"]) == ["piqe"] and len(report["gain"]) == 1
    assert finalists["samples"].shape[1:] == best["samples"].shape[1:] and report["preset"] == name


def test_the_plain_sample_is_the_last_finalist(host, vae):
    _, finalists, _report = run(host, vae, preset="best_of_n")
    torch.testing.assert_close(finalists["samples"][-1:], baseline(host), atol=1e-4, rtol=1e-4)
    assert len(finalists["samples"]) == 16


@pytest.mark.parametrize("case", ["cfg", "image to image", "mask", "batch"])
def test_searches_keep_to_cfg_masks_denoise_and_batches(host, vae, case):
    options = {
        "cfg": {"cfg": 3.0, "negative": prompt(9, tokens=5)},
        "image to image": {"latent": {"samples": random_latent(5)}, "steps": sigmas(5, 0.6)},
        "mask": {"latent": masked(2)},
        "batch": {"latent": {"samples": torch.zeros(3, 16, 8, 8)}},
    }[case]
    best, _, _report = run(host, vae, preset="paper", **options)
    base = baseline(host, **options)
    assert best["samples"].shape == base.shape and best["samples"].isfinite().all()
    assert (vae.decode(best["samples"]).mean((1, 2, 3)) >= vae.decode(base).mean((1, 2, 3)) - 1e-4).all()
    if case == "mask":
        kept = options["latent"]["samples"][..., :4]
        torch.testing.assert_close(best["samples"][..., :4], kept, atol=1e-4, rtol=1e-4)
        assert (best["samples"][..., 4:] - kept).abs().max() > 0.1


def test_the_finalists_stand_below_the_chart_with_their_scores(host, vae):
    import json

    from comfyui_fluxir.nodes.search import SearchReportChart

    best, finalists, report = run(host, vae, preset="best_of_n", latent={"samples": torch.zeros(2, 16, 8, 8)})
    images = vae.decode(finalists["samples"])
    chart, both = (SearchReportChart.execute(json.dumps(report), 1, given).result[0] for given in (None, images))
    assert chart.shape == (1, 432, 768, 3) and torch.equal(both[:, :432], chart) and both.shape[1] > 800
    winner = report["winner"][1]
    if winner >= 0:  # the values are of the finalists in their order: the winner's is the best image
        torch.testing.assert_close(finalists["samples"][2 * winner + 1], best["samples"][1], atol=1e-4, rtol=1e-4)
        assert report["finalist_values"][1][winner] == report["score"][1]
    with pytest.raises(ValueError, match="^Search Report Chart: 31 final candidates for a report of 32; decode those of "):
        SearchReportChart.execute(json.dumps(report), 1, images[1:])


def test_each_image_of_a_batch_is_restored_from_its_own_input(host, vae):
    """The adapter's degraded latents are tiled over the candidates: image for image as if sampled alone."""
    lq = random_latent(1, batch=2)
    both, _, _ = run(host, vae, model=host.apply(lq=lq), latent={"samples": torch.zeros(2, 16, 8, 8)}, preset="best_of_n")
    drawn = noise().generate_noise({"samples": torch.zeros(2, 16, 8, 8)})

    class Second:
        seed = 7

        def generate_noise(self, latent):
            return drawn[1:]

    from comfyui_fluxir.nodes.search import TTSSampler

    with torch.inference_mode():
        alone = TTSSampler.execute(
            Second(),
            guider(host.apply(lq=lq[1:])),
            sigmas(),
            {"samples": torch.zeros(1, 16, 8, 8), "batch_index": [1]},
            vae,
            verifier(),
            "best_of_n",
        ).result[0]["samples"]
    torch.testing.assert_close(both["samples"][1:], alone, atol=2e-4, rtol=1e-3)


def company(host, kind):
    """A model and positive conditioning with what other nodes and packs put there."""
    import comfy.sd

    model, positive = host.model, prompt(3)
    if kind == "LoRA":
        name = "diffusion_model.double_blocks.0.img_attn.proj"
        lora = {f"{name}.lora_up.weight": random(1, 128, 4), f"{name}.lora_down.weight": random(2, 4, 128)}
        model = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]
    elif kind == "ControlNet":
        from comfy.controlnet import ControlBase

        class Hint(ControlBase):
            def get_control(self, x, t, cond, batched_number, transformer_options):
                tiled = self.cond_hint_original.repeat(len(x) // len(self.cond_hint_original), 1, 1)
                return {"input": [tiled], "output": []}

            def copy(self):
                return self

            def get_models(self):
                return []

        hint = Hint()
        hint.cond_hint_original = random(4, 2, 16, 128)
        positive = [[positive[0][0], {**positive[0][1], "control": hint, "control_apply_to_uncond": False}]]
    elif kind == "reference latents":
        positive = prompt(3, reference_latents=[random_latent(5, batch=2)])
    elif kind == "regions":
        half = torch.zeros(1, 8, 8)
        half[..., :4] = 1
        positive = [
            [c, {**options, "mask": mask, "mask_strength": 1.0, "set_area_to_bounds": False}]
            for (c, options), mask in zip((prompt(3)[0], prompt(4)[0]), (half, 1 - half))
        ]
    elif kind == "adapter":
        model = host.apply(lq=random_latent(1, batch=2))
    return model, positive


@pytest.mark.parametrize("kind", ["LoRA", "ControlNet", "reference latents", "regions", "adapter"])
def test_candidates_that_share_a_call_keep_their_own_conditioning(host, vae, monkeypatch, kind):
    """A batch of two images, eight candidates a call or one: whatever the graph holds meets its own image."""

    model, positive = company(host, kind)
    from comfyui_fluxir.nodes import search_sampler

    options = {"model": model, "positive": positive, "latent": {"samples": torch.zeros(2, 16, 8, 8)}, "preset": "best_of_n"}
    together = run(host, vae, **options)[0]["samples"]
    monkeypatch.setattr(search_sampler, "MOST_AT_ONCE", 1)
    best, _, report = run(host, vae, **options)
    assert report["at_once"] == 1
    torch.testing.assert_close(together, best["samples"], atol=3e-4, rtol=1e-3)
    assert not torch.allclose(best["samples"], run(host, vae, **{**options, "model": None, "positive": None})[0]["samples"])


def test_the_sampler_form_gives_the_same_image(host, vae):
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
    (first, _, report), (second, _, again) = (run(host, vae, preset="quick") for _ in range(2))
    assert torch.equal(first["samples"], second["samples"]) and report == again


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
    base = baseline(host)
    assert model.model.model_type.name == "FLOW" and report["winner"] != [-1]
    assert vae.decode(best["samples"]).mean() > vae.decode(base).mean()


def test_a_kept_report_belongs_to_what_the_search_is_made_of(comfy):
    """Whatever its nodes are called, and not once anything above it has changed; a circle above it is no search's."""
    from types import SimpleNamespace

    from comfyui_fluxir.nodes.search_metadata import METADATA, SAMPLER, add_known_reports, keep_report

    def graph(seed, *ids):
        noise, sampler = ids
        made_of = {noise: {"class_type": "RandomNoise", "inputs": {"noise_seed": seed}}}
        return made_of | {sampler: {"class_type": SAMPLER, "inputs": {"noise": [noise, 0], "also": [noise, 0]}}}

    def added(prompt):
        return add_known_reports({"prompt": prompt}).get("extra_data", {}).get("extra_pnginfo", {}).get(METADATA)

    keep_report(SimpleNamespace(extra_pnginfo=None, prompt=graph(1, "a", "b"), unique_id="b"), {"nfe": 7})
    assert added(graph(1, "c", "d")) == {"d": {"nfe": 7}}
    assert added(graph(1.0, "a", "b")) == {"b": {"nfe": 7}}  # a browser's 1 is ComfyUI's 1.0
    assert added(graph(2, "a", "b")) is None and added(graph(2**60 + 1, "a", "b")) is None
    assert added({"a": {"class_type": SAMPLER, "inputs": {"noise": ["a", 0]}}}) is None
    both = add_known_reports({"prompt": graph(1, "a", "b"), "extra_data": {"extra_pnginfo": {"workflow": {}}}})
    assert both["extra_data"]["extra_pnginfo"] == {"workflow": {}, METADATA: {"b": {"nfe": 7}}}
