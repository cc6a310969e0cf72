"""Condition tokens on diffusers: the same as in one sequence, and as one image's keys and values computed once."""

from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.lora.lora import LoRA
from comfyui_fluxir.fluxir_core.ummf.mode import KONTEXT, OMINI, ConditionMode
from comfyui_fluxir.training.diffusers_host.transformer import call_transformer
from comfyui_fluxir.training.diffusers_host.ummf_host import UMMFHost

from .tiny import TINY

ALONE = ConditionMode(attention="alone")
CONDITION = 16


@pytest.fixture
def lq():
    return torch.randn(2, CONDITION, 64, generator=torch.Generator().manual_seed(1))


def random_lora(keep=lambda name: True, scale=0.3):
    """A LoRA on the modules that `keep` takes, whose output is not zero."""
    whole = LoRA.new(TINY, 4)
    lora = LoRA({name: shape for name, shape in whole.shapes.items() if keep(name)}, TINY)
    generator = torch.Generator().manual_seed(2)
    for parameter in lora.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale / parameter.shape[1] ** 0.5
    return lora


def velocity(host, given, lq, **options):
    condition = host.prepare(lq, given["text"], given["pooled"], given["image_ids"], **options)
    with torch.no_grad():
        return host.velocity(given["tokens"], given["t"], condition, given["guidance"])


def in_one_sequence(transformer, given, lq):
    """The transformer's own output for output and condition tokens side by side, as FLUX.1 Kontext takes them."""
    ids = given["image_ids"].clone()
    ids[:, 0] = 1
    both = {**given, "tokens": torch.cat([given["tokens"], lq], 1), "image_ids": torch.cat([given["image_ids"], ids])}
    with torch.no_grad():
        return call_transformer(transformer, **both)[:, : given["tokens"].shape[1]]


def test_the_kontext_mode_is_the_transformer_on_one_sequence(transformer, given, lq):
    expected = in_one_sequence(transformer, given, lq)
    host = UMMFHost(transformer, LoRA.new(TINY, 4), KONTEXT)
    torch.testing.assert_close(velocity(host, given, lq), expected, rtol=1e-5, atol=1e-5)
    bare = call_transformer(transformer, **given)
    assert (expected - bare).abs().mean() > 0.01


def test_a_lora_for_all_tokens_is_one_merged_into_the_weights(transformer, given, lq):
    lora = random_lora()
    host = UMMFHost(transformer, lora, KONTEXT)
    in_hooks = velocity(host, given, lq)
    host.remove()
    assert (in_hooks - in_one_sequence(transformer, given, lq)).abs().mean() > 0.01
    for name in lora.shapes:
        layer = lora.layers[name.replace(".", "/")]
        transformer.get_submodule(name).weight.data += layer.scale * layer.up.weight.data @ layer.down.weight.data
    torch.testing.assert_close(in_hooks, in_one_sequence(transformer, given, lq), rtol=1e-4, atol=1e-5)


def test_a_lora_for_the_condition_changes_its_tokens_alone(transformer, given, lq):
    """Against hooks on the one sequence that change its last tokens only; modulations have no tokens and are left out."""
    lora = random_lora(lambda name: "norm" not in name)
    mode = replace(KONTEXT, tokens="condition")
    host = UMMFHost(transformer, lora, mode)
    ours = velocity(host, given, lq)
    host.remove()
    for name in lora.shapes:

        def gated(_module, args, output, layer=lora.layers[name.replace(".", "/")]):
            change = layer(args[0])
            change[:, :-CONDITION] = 0
            return output + change

        transformer.get_submodule(name).register_forward_hook(gated)
    torch.testing.assert_close(ours, in_one_sequence(transformer, given, lq), rtol=1e-4, atol=1e-5)


def test_a_fixed_timestep_is_the_shared_one_where_they_meet(transformer, given, lq):
    given["t"] = torch.full((2,), 0.25)
    lora = random_lora()
    shared = velocity(UMMFHost(transformer, lora, replace(OMINI, timestep=None, guidance=None)), given, lq)
    fixed = velocity(UMMFHost(transformer, lora, replace(OMINI, timestep=0.25, guidance=4.0)), given, lq)
    other = velocity(UMMFHost(transformer, lora, OMINI), given, lq)
    torch.testing.assert_close(fixed, shared)
    assert (other - shared).abs().mean() > 1e-3


@pytest.mark.parametrize("guidance", [1.0, None], ids=["guidance of its own", "the output's guidance"])
def test_what_attends_to_itself_alone_is_computed_once(transformer, given, lq, guidance):
    given["guidance"] = torch.tensor([4.0, 2.5])
    host = UMMFHost(transformer, random_lora(), replace(ALONE, guidance=guidance))
    condition = host.prepare(lq, given["text"], given["pooled"], given["image_ids"])
    calls = []
    host.branch.remember = lambda *args, run=host.branch.remember: calls.append(1) or run(*args)
    with torch.no_grad():
        kept = [host.velocity(given["tokens"], t.expand(2), condition, given["guidance"]) for t in (given["t"][0], given["t"][1])]
    assert calls == [1]
    with torch.enable_grad():
        again = [host.velocity(given["tokens"], t.expand(2), condition, given["guidance"]) for t in (given["t"][0], given["t"][1])]
    for ours, theirs in zip(kept, again):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-5)
    assert (kept[0] - kept[1]).abs().mean() > 0.01
    joint = velocity(UMMFHost(transformer, host.adapter, OMINI), given, lq)
    assert (joint - velocity(host, given, lq)).abs().mean() > 1e-4


@pytest.mark.parametrize("mode", [KONTEXT, OMINI, ALONE], ids=["kontext", "omini", "alone"])
def test_strength_goes_from_the_bare_model_to_the_condition(transformer, given, lq, mode):
    host = UMMFHost(transformer, random_lora(), mode)
    host.strength = 0
    bare = velocity(host, given, lq)
    assert torch.equal(
        bare,
        host.bare_velocity(
            given["tokens"], given["t"], host.prepare(lq, given["text"], given["pooled"], given["image_ids"]), given["guidance"]
        ).detach(),
    )
    if mode.tokens == "all":  # whose LoRA changes the output's own tokens at any strength above 0
        host.remove()
        host = UMMFHost(transformer, LoRA.new(TINY, 4), mode)
    far = []
    for strength in (1e-6, 0.3, 1, 3):
        host.strength = strength
        far.append((velocity(host, given, lq) - bare).abs().mean())
    assert far[0] < 1e-3 and far == sorted(far)


@pytest.mark.parametrize("mode", [OMINI, ALONE])
def test_a_row_that_is_not_shown_its_image_is_the_bare_models(transformer, given, lq, mode):
    host = UMMFHost(transformer, random_lora(), mode)
    with torch.no_grad():
        bare = host.bare_velocity(
            given["tokens"], given["t"], host.prepare(lq, *map(given.get, ("text", "pooled", "image_ids"))), given["guidance"]
        )
    all_shown = velocity(host, given, lq)
    found = velocity(host, given, lq, shown=torch.tensor([True, False]))
    assert (bare[0] - all_shown[0]).abs().max() > 1e-2
    assert torch.allclose(found[0], all_shown[0], atol=1e-5) and torch.allclose(found[1], bare[1], atol=1e-5)


def test_a_smaller_condition_covers_the_same_area(transformer, given):
    host = UMMFHost(transformer, random_lora(), OMINI)
    small = torch.randn(2, 4, 64)
    condition = host.prepare(small, given["text"], given["pooled"], given["image_ids"], (2, 2))
    assert condition.ids.tolist() == [[0, row, column] for row in (0.5, 2.5) for column in (0.5, 2.5)]
    assert velocity(host, given, small, lq_grid=(2, 2)).shape == given["tokens"].shape


@pytest.mark.parametrize("mode", [KONTEXT, OMINI, ALONE], ids=["kontext", "omini", "alone"])
def test_checkpointed_gradients_are_the_plain_ones(transformer, given, lq, mode):
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            transformer.train().enable_gradient_checkpointing()
        lora = random_lora()
        host = UMMFHost(transformer, lora, mode)
        condition = host.prepare(lq, given["text"], given["pooled"], given["image_ids"])
        host.velocity(given["tokens"], given["t"], condition, given["guidance"]).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in lora.named_parameters()})
        host.remove()
    plain, recomputed = gradients
    assert all(grad is not None for name, grad in plain.items() if "single_transformer_blocks/1" not in name)
    torch.testing.assert_close(recomputed, plain, rtol=1e-4, atol=1e-6)


def test_removing_the_host_leaves_the_transformer_as_it_was(transformer, given, lq):
    bare = call_transformer(transformer, **given)
    before = transformer.attn_processors
    host = UMMFHost(transformer, random_lora(), KONTEXT)
    assert not torch.equal(velocity(host, given, lq), bare)
    host.remove()
    assert torch.equal(call_transformer(transformer, **given), bare)
    assert transformer.attn_processors == before


def test_a_lora_of_another_size_is_refused(transformer):
    with pytest.raises(ValueError, match="choose the LoRA made for it"):
        UMMFHost(transformer, LoRA.new(replace(TINY, vec_dim=16), 4), OMINI)
