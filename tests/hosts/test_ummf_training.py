"""UMMF's recipe and its rivals learn; a LoRA that was trained restores and searches."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids
from comfyui_fluxir.fluxir_core.lora.lora import LoRA
from comfyui_fluxir.fluxir_core.ummf.mode import ConditionMode
from comfyui_fluxir.training.diffusers_host.model_folder import load_models
from comfyui_fluxir.training.diffusers_host.transformer import call_transformer, flux_dimensions
from comfyui_fluxir.training.diffusers_host.ummf_host import UMMFHost
from comfyui_fluxir.training.engine.draws import Draws
from comfyui_fluxir.training.miniature.autoencoder import NarrowTAESD, narrowed, widen
from comfyui_fluxir.training.recipes.memory_plan import _Allocations
from comfyui_fluxir.training.recipes.ummf import UMMFObjective, UMMFRecipe
from comfyui_fluxir.training.studies.fusion import AdditionHost, ControlNetHost
from safetensors.torch import load_file

from ..unit.tiny_training import FlatImages, flow_error, run, tiny_host

PRODIGY = {"name": "prodigy", "learning_rate": 1.0, "warmup": 0, "decay": 0.0}


EMPTY = torch.zeros(2, 8), torch.zeros(4)


def ummf(host, **recipe):
    return UMMFObjective(host, UMMFRecipe(**{"drop_image": 0.0, "guidance": 4.0, **recipe}), EMPTY)


def deep_ummf(blocks, attention, checkpointing):
    """UMMF's objective on a transformer of one double block and `blocks` single ones, its LoRA not zero."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=blocks,
        num_attention_heads=1,
        joint_attention_dim=8,
        pooled_projection_dim=4,
        guidance_embeds=True,
    ).requires_grad_(False)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
        transformer.train()
    lora = LoRA.new(flux_dimensions(transformer), 4)
    for parameter in lora.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return ummf(UMMFHost(transformer, lora, ConditionMode(attention=attention)))


def backward(objective, tokens=4):
    batch = FlatImages(2)(0, range(2))
    batch.clean, batch.degraded = (own.repeat(1, tokens // 4, 1) for own in (batch.clean, batch.degraded))
    batch.image_ids, batch.grid = image_ids(4, tokens), (4, tokens)
    objective(batch, Draws(0, 0, range(2)))["loss"].backward()
    return [parameter.grad for parameter in objective.adapter.parameters()]


@pytest.mark.parametrize("attention", ["joint", "alone"])
def test_gradient_checkpointing_keeps_hardly_a_blocks_activations(attention):
    def growth(checkpointing):
        peaks = []
        for blocks in (2, 6):
            objective = deep_ummf(blocks, attention, checkpointing)
            for parameter in objective.adapter.parameters():
                parameter.grad = torch.zeros_like(parameter)
            with _Allocations() as live:
                backward(objective, tokens=128)
            peaks.append(live.peak)
        return peaks[1] - peaks[0]

    assert growth(True) < 0.15 * growth(False)


@pytest.mark.parametrize("attention", ["joint", "alone"])
def test_gradient_checkpointing_changes_no_gradient(attention):
    plain, again = (backward(deep_ummf(2, attention, checkpointing)) for checkpointing in (False, True))
    assert any(gradient is not None and gradient.any() for gradient in plain)
    for one, other in zip(plain, again):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dropped", [0.0, 0.5, 1.0])
def test_a_dropped_prompt_is_the_empty_one(monkeypatch, dropped):
    objective, batch, shown = deep_ummf(1, "joint", False), FlatImages()(0, range(8)), []
    objective.recipe, objective.empty = UMMFRecipe(drop_text=dropped), (torch.full((2, 8), 7.0), torch.full((4,), 5.0))
    batch.text, batch.pooled = torch.randn(8, 2, 8), torch.randn(8, 4)
    prepare = objective.host.prepare
    monkeypatch.setattr(objective.host, "prepare", lambda *given, **more: shown.append(given) or prepare(*given, **more))
    objective(batch, Draws(0, 0, range(8)))
    _, text, pooled, _ = shown[0]
    lost = (text == 7).all((1, 2))
    assert torch.equal(lost, (pooled == 5).all(1)) and lost.any() == (dropped > 0) and lost.all() == (dropped == 1)
    assert torch.equal(text[~lost], batch.text[~lost]) and torch.equal(pooled[~lost], batch.pooled[~lost])


def test_a_dropped_image_is_left_out_of_the_sequence(monkeypatch):
    objective, seen = ummf(deep_ummf(1, "joint", False).host, drop_image=0.5), []
    prepare = objective.host.prepare
    monkeypatch.setattr(
        objective.host, "prepare", lambda *given, **options: seen.append(options["shown"]) or prepare(*given, **options)
    )
    objective.losses(FlatImages(8)(0, range(8)), Draws(0, 0, range(8)))
    assert seen[0].shape == (8,) and 0 < seen[0].sum() < 8


@pytest.mark.parametrize("attention", ["joint", "alone"])
def test_the_lora_learns_to_read_the_image(tmp_path, attention):
    transformer = tiny_host().transformer
    host = UMMFHost(transformer, LoRA.new(flux_dimensions(transformer), 4), ConditionMode(attention=attention))
    before = flow_error(host)
    trained = run(tmp_path, 80, ummf(host), optimizer=PRODIGY)
    assert flow_error(host, trained) < 0.9 * before
    up = [value for name, value in trained.items() if name.endswith("up.weight")]
    # All but what follows the last block's attention, where FLUX drops the condition, and its queries' norms.
    assert sum(bool(value.any()) for value in up) >= len(up) - 4


def test_the_bundled_autoencoder_is_narrowed_exactly():
    torch.manual_seed(0)
    net = NarrowTAESD()
    for (name, one), other in zip(net.state_dict().items(), narrowed(widen(net)).state_dict().values()):
        assert torch.equal(one, other), name
    from comfyui_fluxir.training.miniature import FOLDER as MINIATURE

    (vae,) = (MINIATURE / "vae").glob("*.safetensors")
    bundled, whole = narrowed(load_file(vae)), load_models("miniature").vae
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(bundled.encode(image), whole.encode(image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [lambda t: AdditionHost(t, 4), lambda t: ControlNetHost(t, 1, 1)], ids=["addition", "controlnet"])
def test_the_papers_rivals_start_as_the_bare_model_and_learn(tmp_path, make):
    transformer = tiny_host().transformer
    rival = make(transformer)
    batch, t = FlatImages()(0, range(8)), torch.full((8,), 0.5)
    bare = call_transformer(transformer, batch.clean, t, batch.text, batch.pooled, batch.image_ids, torch.full((8,), 4.0))
    with torch.no_grad():
        condition = rival.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
        first = rival.velocity(batch.clean, t, condition, torch.full((8,), 4.0))
    torch.testing.assert_close(first, bare, rtol=1e-5, atol=1e-5)
    before = flow_error(rival)
    assert flow_error(rival, run(tmp_path, 80, ummf(rival), optimizer=PRODIGY)) < 0.9 * before
