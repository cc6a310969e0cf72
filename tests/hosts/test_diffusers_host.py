"""The adapter on diffusers: nothing at the start, everything undone at the end, and it learns."""

import pytest
import torch

from comfyui_fluxir.fluxir_core.adapter import AdapterFileError, bfl_to_diffusers
from comfyui_fluxir.fluxir_core.tokens import image_ids
from comfyui_fluxir.training.host import DiffusersHost, call_transformer

from .tiny import TINY, flux_weights, tiny_adapter


@pytest.fixture
def transformer():
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        num_layers=2, num_single_layers=2, num_attention_heads=1, joint_attention_dim=64, pooled_projection_dim=32,
        guidance_embeds=True,
    )  # fmt: skip
    model.load_state_dict(bfl_to_diffusers(flux_weights()))
    return model.eval().requires_grad_(False)


@pytest.fixture
def given():
    torch.manual_seed(0)
    ids = image_ids(8, 8)
    return dict(
        tokens=torch.randn(2, 16, 64), t=torch.tensor([0.25, 1.0]), text=torch.randn(2, 8, 64),
        pooled=torch.randn(2, 32), image_ids=ids, guidance=torch.full((2,), 4.0),
    )  # fmt: skip


def bare(transformer, given):
    return call_transformer(transformer, **given)


def adapted(host, given, degraded=None):
    degraded = torch.zeros_like(given["tokens"]) if degraded is None else degraded
    condition = host.prepare(degraded, given["text"], given["pooled"], given["image_ids"])
    return host.velocity(given["tokens"], given["t"], condition, given["guidance"])


@pytest.mark.parametrize("inject", ["after", "before"])
def test_the_initial_adapter_leaves_the_output_bit_identical(transformer, given, inject):
    before = bare(transformer, given)
    host = DiffusersHost(transformer, tiny_adapter(flux_weights(), excitation=0, inject=inject))
    assert torch.equal(adapted(host, given), before)


@pytest.mark.parametrize("inject", ["after", "before"])
def test_strength_zero_and_removal_leave_the_bare_model(transformer, given, inject):
    before = bare(transformer, given)
    host = DiffusersHost(transformer, tiny_adapter(flux_weights(), inject=inject))
    assert not torch.allclose(adapted(host, given), before, atol=1e-2)
    host.strength = 0.0
    assert torch.equal(adapted(host, given), before)
    host.strength = 1.0
    host.remove()
    assert torch.equal(bare(transformer, given), before)


def test_the_degraded_picture_changes_the_velocity(transformer, given):
    host = DiffusersHost(transformer, tiny_adapter(flux_weights()))
    assert (adapted(host, given) - adapted(host, given, torch.randn(2, 16, 64))).abs().mean() > 1e-3


def test_gradient_checkpointing_changes_neither_loss_nor_gradients(transformer, given):
    adapter = tiny_adapter(flux_weights())
    host = DiffusersHost(transformer, adapter)
    gradients = []
    for checkpointing in (False, True):
        (transformer.enable_gradient_checkpointing if checkpointing else transformer.disable_gradient_checkpointing)()
        transformer.train(checkpointing)
        adapter.zero_grad()
        adapted(host, given).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in adapter.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_times_stay_exact_in_bfloat16(transformer, given):
    """bfloat16 has 8 bits: without the hooks t = 0.25 and 0.2505 would be one timestep."""
    seen = []
    transformer.time_text_embed.timestep_embedder.linear_1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    host = DiffusersHost(transformer.bfloat16(), tiny_adapter(flux_weights()).bfloat16())
    given = {key: value if key in ("t", "guidance", "image_ids") else value.bfloat16() for key, value in given.items()}
    given["t"] = torch.tensor([0.25, 0.2505])
    adapted(host, given)
    assert (seen[0][0] - seen[0][1]).abs().max() > 0.1


def test_an_adapter_for_another_base_is_refused(transformer):
    from dataclasses import replace

    other = replace(TINY, single_blocks=3)
    with pytest.raises(AdapterFileError, match="single_blocks 3 instead of 2"):
        DiffusersHost(transformer, tiny_adapter(flux_weights(other), other))
