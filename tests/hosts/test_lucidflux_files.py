"""LucidFlux's weights in ComfyUI: managed, in lower precision, with LoRAs, refused; and its schedule and prompt."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.lucidflux.files import load_lucidflux, save_lucidflux
from comfyui_fluxir.fluxir_core.lucidflux.schedule import lucidflux_sigmas
from safetensors.torch import save_file

from ..unit import lucidflux_reference as reference
from .comfy_host import random
from .lucidflux_host import CLOSE, features, image, write_lora

# Weights


def test_comfyui_manages_the_weights(lucid):
    import comfy.model_management

    model = lucid.apply()
    assert model.get_additional_models() == [lucid.lucidflux.patcher]
    lucid.host.sample(model)
    assert any(m.model.model is lucid.lucidflux.patcher.model for m in comfy.model_management.current_loaded_models)
    again = lucid.apply(model, degraded=image(7))
    assert len(again.get_additional_models()) == 1 and not lucid.host.model.get_additional_models()
    assert torch.equal(lucid.host.sample(again), lucid.host.sample(lucid.apply(degraded=image(7))))


class Stop(Exception):
    pass


@pytest.mark.parametrize("ending", ["finished", "interrupted", "failed"])
def test_the_model_is_as_it_was_and_nothing_is_kept(lucid, ending):
    import comfy.model_management

    expected = lucid.host.sample(lucid.host.model)
    model = lucid.apply()
    raised = {"interrupted": comfy.model_management.InterruptProcessingException, "failed": Stop}.get(ending)

    def callback(step, *_):
        if step == 1 and raised:
            raise raised()

    if raised:
        with pytest.raises(raised):
            lucid.host.sample(model, callback=callback)
    else:
        lucid.host.sample(model, callback=callback)
    hooks = model.callbacks["on_cleanup"]["fluxir_lucidflux"][0].__self__
    assert not hooks._prepared and hooks._fitted is None
    assert torch.equal(lucid.host.sample(lucid.host.model), expected)


def test_the_memory_estimate_covers_branches_and_tokens(lucid, monkeypatch):
    import comfy.sampler_helpers

    heights = []
    estimate = comfy.sampler_helpers.estimate_memory
    monkeypatch.setattr(
        comfy.sampler_helpers,
        "estimate_memory",
        lambda model, shape, conds: heights.append(shape[2]) or estimate(model, shape, conds),
    )
    lucid.host.sample(lucid.host.model)
    lucid.host.sample(lucid.apply())
    assert heights == [8, 8 + 2 + 5]  # 3/16 of 8 rows; 10 tokens are 40 latent pixels, 5 rows of 8


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_file_in_lower_precision_is_kept_so_and_computes_near_the_same(lucid, precision):
    name = f"{precision}.safetensors".removeprefix("torch.")
    lower = {key: value.to(precision) if value.ndim > 1 else value.bfloat16() for key, value in lucid.weights.items()}
    save_file(lower, lucid.folder / name)
    loaded = lucid.load(name)
    weights = loaded.patcher.model.state_dict()
    assert weights["condition_lq.img_in.weight"].dtype == precision
    assert torch.equal(weights["condition_lq.img_in.bias"].float(), lower["condition_lq.img_in.bias"].float())
    exact, near = lucid.host.sample(lucid.apply(), steps=1), lucid.host.sample(lucid.apply(lucidflux=loaded), steps=1)
    bare = lucid.host.sample(lucid.host.model, steps=1)
    assert 0 < (near - exact).norm() < 0.2 * (exact - bare).norm()


def test_lucidnft_changes_the_branches_as_if_it_were_merged(lucid):
    from comfyui_fluxir.nodes.lucidflux import ApplyLucidFluxLoRA

    deltas = write_lora(lucid.folder / "lora_condition")
    merged = {key: value + deltas[key] if key in deltas else value for key, value in lucid.weights.items()}
    save_file(merged, lucid.folder / "merged.safetensors")
    expected = lucid.host.sample(lucid.apply(lucidflux=lucid.load("merged.safetensors")))
    before = lucid.host.sample(lucid.apply())
    changed = ApplyLucidFluxLoRA.execute(lucid.lucidflux, "lora_condition/adapter_model.safetensors", 1.0).result[0]
    torch.testing.assert_close(lucid.host.sample(lucid.apply(lucidflux=changed)), expected, **CLOSE)
    assert (expected - before).abs().mean() > 1e-3
    assert torch.equal(lucid.host.sample(lucid.apply()), before)
    assert torch.equal(
        lucid.host.sample(lucid.apply(lucid.apply(), lucidflux=changed)), lucid.host.sample(lucid.apply(lucidflux=changed))
    )


def test_a_lora_of_another_size_is_refused(lucid):
    from comfyui_fluxir.nodes.lucidflux import ApplyLucidFluxLoRA

    folder = lucid.folder / "other"
    folder.mkdir()
    key = "base_model.model.dual_condition_branch.lq.double_blocks.7.img_mlp.0"
    save_file(
        {f"{key}.lora_A.weight": torch.zeros(2, 128), f"{key}.lora_B.weight": torch.zeros(512, 2)}, folder / "lora.safetensors"
    )
    with pytest.raises(
        ValueError, match="Apply LucidFlux LoRA: other/lora.safetensors changes parts that lucidflux.safetensors lacks"
    ):
        ApplyLucidFluxLoRA.execute(lucid.lucidflux, "other/lora.safetensors", 1.0)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degraded": image(1, 3)}, "Apply LucidFlux: 3 rows of the degraded image for a sampled batch of 1; give one"),
        ({"cleaned": image(1, 1, 64, 32)}, "Apply LucidFlux: cleaned: an image is 32x64 but the sampled latent is for 64x64"),
        ({"clip_vision": features(3, 2)}, "2 rows of the image encoder's output for a sampled batch of 1"),
        ({"start": 0.5, "end": 0.5}, "start_percent 0.5 is not below end_percent 0.5"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(lucid, options, message):
    with pytest.raises(ValueError, match=message):
        lucid.host.sample(lucid.apply(**options))


def test_a_lucidflux_for_another_base_is_refused(lucid):
    save_file(reference.random_weights(hidden=128, context=32, vec=32, features=12, inner=24), lucid.folder / "small.safetensors")
    with pytest.raises(
        ValueError, match="^Apply LucidFlux: LucidFlux was made for another base model .context_dim 32 instead of 64"
    ):
        lucid.apply(lucidflux=lucid.load("small.safetensors"))


def test_a_file_that_is_no_lucidflux_is_named(lucid):
    save_file({"a": torch.zeros(1)}, lucid.folder / "else.safetensors")
    with pytest.raises(ValueError, match="^Load LucidFlux: else.safetensors is no LucidFlux file; choose lucidflux.pth"):
        lucid.load("else.safetensors")


# Schedule and prompt


def test_the_sigmas_are_those_of_the_sampled_size(comfy):
    from comfyui_fluxir.nodes.lucidflux import LucidFluxSigmas

    (sigmas,) = LucidFluxSigmas.execute({"samples": torch.zeros(1, 16, 128, 96)}, 20).result
    assert torch.equal(sigmas, lucidflux_sigmas(20, 1024, 768)) and len(sigmas) == 21


def test_a_stored_prompt_is_a_conditioning(lucid):
    from comfyui_fluxir.nodes.stored_prompt import LoadStoredPrompt

    text, pooled = random(1, 1, 7, 64), random(2, 1, 32)
    torch.save({"txt": text, "vec": pooled, "prompt": "restore"}, lucid.folder / "prompt_embeddings.pt")
    (stored,) = LoadStoredPrompt.execute("prompt_embeddings.pt", 2.5).result
    expected = [[text, {"pooled_output": pooled, "guidance": 2.5}]]
    assert torch.equal(lucid.host.sample(lucid.apply(), positive=stored), lucid.host.sample(lucid.apply(), positive=expected))
    with pytest.raises(ValueError, match="^Load Stored Prompt: lucidflux.safetensors holds no prompt"):
        LoadStoredPrompt.execute("lucidflux.safetensors", 4.0)


def test_a_converted_file_holds_its_prompt(lucid):
    from comfyui_fluxir.fluxir_core.flux.prompt_files import StoredPrompt
    from comfyui_fluxir.nodes.stored_prompt import LoadStoredPrompt

    own = StoredPrompt(random(1, 7, 64), random(2, 32), "restore")
    save_lucidflux(lucid.folder / "whole.safetensors", load_lucidflux(lucid.folder / "lucidflux.safetensors"), own)
    (stored,) = LoadStoredPrompt.execute("whole.safetensors", 4.0).result
    assert torch.equal(stored[0][0], own.text[None]) and torch.equal(stored[0][1]["pooled_output"], own.pooled[None])
    expected = lucid.host.sample(lucid.apply())
    torch.testing.assert_close(lucid.host.sample(lucid.apply(lucidflux=lucid.load("whole.safetensors"))), expected, **CLOSE)
