"""LoRA for FLUX: OminiControl's modules (arXiv 2603.22027), their sums in BFL's layout, and the files they come in."""

import re
from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.flux.dimensions import FLUX_DEV
from comfyui_fluxir.fluxir_core.flux.keymap import bfl_to_diffusers, diffusers_to_bfl
from comfyui_fluxir.fluxir_core.lora.files import load_lora, save_lora
from comfyui_fluxir.fluxir_core.lora.lora import LoRA, linear_sizes, lora_targets
from comfyui_fluxir.fluxir_core.ummf.condition_stream import ConditionBranch
from comfyui_fluxir.fluxir_core.ummf.mode import KONTEXT, OMINI, ConditionMode
from safetensors.torch import load_file
from torch.nn import functional as F

from ..hosts.tiny import TINY, flux_weights
from .lora_cases import BFL_LINEARS, WEIGHTS, assert_same_deltas, loaded_lora, module_input, random_lora


def test_rank_16_on_flux_dev_has_ominicontrols_57951232_parameters_in_343_modules():
    lora = LoRA.new(FLUX_DEV, 16, device="meta")
    counts = {}
    for name, layer in lora.layers.items():
        kind = re.sub(r"/\d+/", ".", name, count=1).replace("/", ".")
        counts[kind] = counts.get(kind, 0) + sum(weight.numel() for weight in layer.parameters())
    double, single = "transformer_blocks.", "single_transformer_blocks."
    assert counts == (
        {"x_embedder": 50_176, f"{double}norm1.linear": 6_537_216, f"{double}ff.net.2": 4_669_440}
        | {f"{double}attn.{name}": 1_867_776 for name in ("to_q", "to_k", "to_v", "to_out.0")}
        | {f"{single}norm.linear": 7_471_104, f"{single}proj_mlp": 9_338_880, f"{single}proj_out": 11_206_656}
        | {f"{single}attn.{name}": 3_735_552 for name in ("to_q", "to_k", "to_v")}
    )
    assert sum(counts.values()) == 57_951_232
    assert len(lora.layers) == 343


@pytest.mark.parametrize("dims", [TINY, replace(TINY, guidance_embed=False, double_blocks=1, single_blocks=3)])
def test_the_sizes_are_those_of_every_linear_in_flux(dims):
    weights = bfl_to_diffusers(flux_weights(dims))
    linears = {key.removesuffix(".weight"): tuple(value.shape[::-1]) for key, value in weights.items() if value.ndim == 2}
    assert linear_sizes(dims) == linears


def test_a_new_lora_starts_as_pefts_gaussian_and_changes_nothing():
    torch.manual_seed(0)
    lora = LoRA.new(TINY, 4, alpha=2)
    assert all(layer.scale == 0.5 for layer in lora.layers.values())
    assert LoRA.new(TINY, 4).shapes["x_embedder"] == (64, 128, 4, 1.0)
    down = torch.cat([layer.down.weight.flatten() for layer in lora.layers.values()])
    assert abs(down.std() - 1 / 4) < 0.005 and abs(down.mean()) < 0.005
    assert not any(lora.delta(name, module_input(name)).any() for name in lora.bfl_modules)
    with pytest.raises(ValueError, match="rank is 0; use 1 or more"):
        LoRA.new(TINY, 0)


@torch.no_grad()
@pytest.mark.parametrize(
    "names",
    [
        list(linear_sizes(TINY)),
        list(lora_targets(TINY)),
        ["transformer_blocks.1.attn.to_k", "single_transformer_blocks.0.attn.to_v", "single_transformer_blocks.1.proj_mlp"],
    ],
    ids=["everything", "OminiControl's", "parts of fused modules"],
)
def test_the_delta_is_what_merging_into_the_weights_would_add(names):
    base, lora = bfl_to_diffusers(WEIGHTS), random_lora(names)
    merged = dict(base)
    for name in names:
        layer = lora.layers[name.replace(".", "/")]
        merged[f"{name}.weight"] = base[f"{name}.weight"] + layer.scale * layer.up.weight @ layer.down.weight
    merged = diffusers_to_bfl(merged)
    for name in BFL_LINEARS:
        x, key = module_input(name), f"{name}.weight"
        added, delta = F.linear(x, merged[key] - WEIGHTS[key]), lora.delta(name, x)
        if delta is None:
            assert not added.any(), name
        else:
            torch.testing.assert_close(delta, added, rtol=1e-3, atol=1e-4, msg=name)
    assert sum(lora.delta(name, module_input(name)) is not None for name in BFL_LINEARS) == len(lora.bfl_modules) > 0


@torch.no_grad()
@pytest.mark.parametrize("names", [list(linear_sizes(TINY)), list(lora_targets(TINY))[::3]], ids=["all", "a third"])
@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_a_saved_lora_comes_back_as_the_same_function_in_the_same_ranks(tmp_path, names, layout):
    lora, path = random_lora(names), tmp_path / "lora.safetensors"
    mode = ConditionMode(guidance=3.5, attention="alone")
    save_lora(path, lora, {"license": "Apache-2.0"}, mode, layout)
    loaded = load_lora(path)
    assert (loaded.mode, loaded.dims, loaded.layout) == (mode, TINY, layout)
    assert (loaded.metadata["license"], loaded.metadata["rank"]) == ("Apache-2.0", "1, 2, 3")
    assert {name: shape[:3] for name, shape in loaded.shapes.items()} == {n: s[:3] for n, s in lora.shapes.items()}
    assert set(loaded.report.matched) == set(load_file(path))
    assert (loaded.report.missing, loaded.report.unused) == ([], [])
    assert_same_deltas(lora, loaded_lora(path))


@torch.no_grad()
def test_going_through_both_layouts_changes_nothing(tmp_path):
    lora, path = random_lora(linear_sizes(TINY)), tmp_path / "lora.safetensors"
    save_lora(path, lora, {}, OMINI, "kohya")
    save_lora(path, loaded_lora(path), {}, OMINI, "diffusers")
    save_lora(path, loaded_lora(path), {}, OMINI, "kohya")
    assert_same_deltas(lora, loaded_lora(path))


def test_the_layouts_spell_the_same_module_their_own_way(tmp_path):
    lora, path = random_lora([f"transformer_blocks.1.attn.to_{kind}" for kind in "qkv"]), tmp_path / "lora.safetensors"
    save_lora(path, lora, {}, OMINI)
    assert "transformer.transformer_blocks.1.attn.to_q.lora_A.weight" in load_file(path)
    assert "transformer.transformer_blocks.1.attn.to_q.lora_B.weight" in load_file(path)
    save_lora(path, lora, {}, OMINI, "kohya")
    fused, sizes = "lora_unet_double_blocks_1_img_attn_qkv", {"lora_down.weight": [6, 128], "lora_up.weight": [384, 6]}
    assert {key: list(value.shape) for key, value in load_file(path).items()} == {
        f"{fused}.{half}": size for half, size in (sizes | {"alpha": []}).items()
    }
    with pytest.raises(ValueError, match="layout is 'lycoris'; use"):
        save_lora(path, lora, {}, OMINI, "lycoris")


@pytest.mark.parametrize("block", [0, TINY.double_blocks])
def test_condition_tokens_stay_finite_in_float16(block):
    """Behind every block, as FLUX's own streams do in ComfyUI and diffusers: an infinity would become NaN in the next."""
    modules = {name: torch.nn.Linear(*reversed(WEIGHTS[f"{name}.weight"].shape)).half() for name in BFL_LINEARS}
    branch = ConditionBranch(lambda name: modules.get(name, torch.nn.Identity()), TINY, KONTEXT)
    state = torch.full((1, 4, TINY.hidden_size), 65000.0).half()
    rotary = branch._rotary([torch.zeros(4, 3)])
    for module in modules.values():
        torch.nn.init.ones_(module.weight)
    *_, leave = branch.enter(block, state, torch.ones(1, TINY.hidden_size).half(), rotary)
    after = leave(torch.zeros_like(state))
    assert after.isfinite().all() and after.abs().max() == torch.finfo(torch.float16).max
