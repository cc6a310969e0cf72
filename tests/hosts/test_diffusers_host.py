"""The adapter on diffusers: nothing at the start, everything undone at the end, and it learns."""

from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.dimensions import FLUX_DEV
from comfyui_fluxir.fluxir_core.flux.weight_files import WeightFileError
from comfyui_fluxir.training.diffusers_host.fluxir_host import FluxIRHost
from comfyui_fluxir.training.diffusers_host.transformer import call_transformer

from .tiny import TINY, flux_weights, tiny_adapter


def bare(transformer, given):
    return call_transformer(transformer, **given)


def adapted(host, given, degraded=None):
    degraded = torch.zeros_like(given["tokens"]) if degraded is None else degraded
    condition = host.prepare(degraded, given["text"], given["pooled"], given["image_ids"])
    return host.velocity(given["tokens"], given["t"], condition, given["guidance"])


@pytest.mark.parametrize("inject", ["after", "before"])
def test_the_initial_adapter_leaves_the_output_bit_identical(transformer, given, inject):
    before = bare(transformer, given)
    host = FluxIRHost(transformer, tiny_adapter(flux_weights(), excitation=0, inject=inject))
    assert torch.equal(adapted(host, given), before)


@pytest.mark.parametrize("inject", ["after", "before"])
def test_strength_zero_and_removal_leave_the_bare_model(transformer, given, inject):
    before = bare(transformer, given)
    host = FluxIRHost(transformer, tiny_adapter(flux_weights(), inject=inject))
    assert not torch.allclose(adapted(host, given), before, atol=1e-2)
    host.strength = 0.0
    assert torch.equal(adapted(host, given), before)
    host.strength = 1.0
    host.remove()
    assert torch.equal(bare(transformer, given), before)


def test_the_degraded_image_changes_the_velocity(transformer, given):
    host = FluxIRHost(transformer, tiny_adapter(flux_weights()))
    assert (adapted(host, given) - adapted(host, given, torch.randn(2, 16, 64))).abs().mean() > 1e-3


def test_gradient_checkpointing_changes_neither_loss_nor_gradients(transformer, given):
    adapter = tiny_adapter(flux_weights())
    host = FluxIRHost(transformer, adapter)
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


def test_a_few_steps_under_autocast_teach_the_adapter_and_leave_the_base(transformer, given):
    """The degraded image itself as target: nothing but the adapter sees it. bfloat16 compute, float32 weights."""
    base = {key: value.clone() for key, value in transformer.state_dict().items()}
    degraded = torch.randn(2, 1, 64).expand(2, 16, 64)
    adapter = tiny_adapter(flux_weights(), excitation=0, rank=16)
    host = FluxIRHost(transformer, adapter)
    optimizer = torch.optim.Adam([p for p in adapter.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            velocity = adapted(host, given, degraded)
        loss = (velocity.float() - degraded).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    assert all(torch.equal(base[key], value) for key, value in transformer.state_dict().items())


@torch.no_grad()
def test_a_base_with_a_lora_takes_the_adapter(transformer, given):
    from peft import LoraConfig

    transformer.add_adapter(LoraConfig(r=2, target_modules=["x_embedder", "to_q"], init_lora_weights=False))
    host = FluxIRHost(transformer, tiny_adapter(flux_weights()))
    with_lora = adapted(host, given)
    transformer.disable_adapters()
    assert (with_lora - adapted(host, given)).abs().mean() > 1e-3


@torch.no_grad()
def test_the_adapter_adds_at_most_3_percent_of_operations_at_flux_dev_size():
    """Counted on the meta device for a step at 1024 px; one block of 57 and the rank-32 SE layers."""
    from diffusers import FluxTransformer2DModel
    from torch.utils.flop_counter import FlopCounterMode

    def operations(call):
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    with torch.device("meta"):
        adapter = FluxIRAdapter(AdapterConfig(FLUX_DEV, rank=32, text_tokens=512))
        host = FluxIRHost(FluxTransformer2DModel(guidance_embeds=True), adapter)
        tokens, times = torch.zeros(1, 64 * 64, 64), torch.ones(1)
        condition = host.prepare(tokens, torch.zeros(1, 512, 4096), torch.zeros(1, 768), torch.zeros(64 * 64, 3))
        bare_step = operations(lambda: host.bare_velocity(tokens, times, condition, times))
        step = operations(lambda: host.velocity(tokens, times, condition, times))
    assert 1 < step / bare_step < 1.03


def test_times_stay_exact_in_bfloat16(transformer, given):
    """bfloat16 has 8 bits: without the hooks t = 0.25 and 0.2505 would be one timestep."""
    seen = []
    embedder = transformer.time_text_embed.timestep_embedder
    embedder.linear_1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    host = FluxIRHost(transformer.bfloat16(), tiny_adapter(flux_weights()).bfloat16())
    given = {key: value if key in ("t", "guidance", "image_ids") else value.bfloat16() for key, value in given.items()}
    given["t"] = torch.tensor([0.25, 0.2505])
    adapted(host, given)
    assert (seen[0][0] - seen[0][1]).abs().max() > 0.1


def test_an_adapter_for_another_base_is_refused(transformer):
    other = replace(TINY, single_blocks=3)
    with pytest.raises(WeightFileError, match="single_blocks 3 instead of 2"):
        FluxIRHost(transformer, tiny_adapter(flux_weights(other), other))
