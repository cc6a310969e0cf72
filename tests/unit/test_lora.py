"""LoRA for FLUX: OminiControl's modules (arXiv 2603.22027), their sums in BFL's layout, and the files they come in."""

import pickle
import re
from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import save_adapter
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.dimensions import FLUX_DEV
from comfyui_fluxir.fluxir_core.flux.keymap import bfl_to_diffusers, diffusers_to_bfl
from comfyui_fluxir.fluxir_core.flux.weight_files import WeightFileError
from comfyui_fluxir.fluxir_core.lora.files import check_lora_base, load_lora, save_lora
from comfyui_fluxir.fluxir_core.lora.lora import LoRA, linear_sizes, lora_targets
from comfyui_fluxir.fluxir_core.ummf.condition_stream import ConditionBranch
from comfyui_fluxir.fluxir_core.ummf.mode import KONTEXT, OMINI, ConditionMode
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ..hosts.tiny import TINY, flux_weights

WEIGHTS = flux_weights()
BFL_LINEARS = [key.removesuffix(".weight") for key, value in WEIGHTS.items() if value.ndim == 2]


def random_lora(names, dims=TINY, seed=0):
    """Ranks 1 to 3 and scales 0.5, 0.75, 1 by turns."""
    sizes, generator = linear_sizes(dims), torch.Generator().manual_seed(seed)
    lora = LoRA({name: (*sizes[name], 1 + i % 3, 0.5 + i % 3 / 4) for i, name in enumerate(names)}, dims)
    with torch.no_grad():
        for weight in lora.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return lora


def loaded_lora(path, dims=TINY):
    loaded = load_lora(path)
    check_lora_base(loaded, dims)
    lora = LoRA(loaded.shapes, dims)
    lora.load_state_dict(loaded.state_dict)
    return lora


def module_input(name, batch=2, tokens=3):
    width = WEIGHTS[f"{name}.weight"].shape[1]
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(width))


def assert_same_deltas(ours, theirs):
    for name in BFL_LINEARS:
        x = module_input(name)
        one, other = ours.delta(name, x), theirs.delta(name, x)
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, msg=name)


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


def foreign(lora, template, down, up, alpha=3.0):
    """`lora`'s weights as another program's file would hold them, without a header."""
    weights = {}
    for name in lora.shapes:
        layer, stem = lora.layers[name.replace(".", "/")], template.format(name)
        weights[f"{stem}.{down}.weight"] = layer.down.weight.detach().clone()
        weights[f"{stem}.{up}.weight"] = layer.up.weight.detach().clone()
        if alpha is not None:
            weights[f"{stem}.alpha"] = torch.tensor(alpha)
    return weights


@torch.no_grad()
@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize("template", ["transformer.{}", "base_model.model.{}", "base_model.model.transformer.{}", "{}"])
@pytest.mark.parametrize(
    ("down", "up"),
    [("lora_A", "lora_B"), ("lora_A.default", "lora_B.default"), ("lora.down", "lora.up"), ("lora_down", "lora_up")],
)
def test_diffusers_modules_are_read_in_every_spelling(tmp_path, template, down, up, alpha):
    lora, path = random_lora(["proj_out", "transformer_blocks.0.attn.to_out.0"]), tmp_path / "lora.safetensors"
    save_file(foreign(lora, template, down, up, alpha), path)
    assert load_lora(path).layout == "diffusers"
    for layer in lora.layers.values():
        layer.scale = 1.0 if alpha is None else alpha / layer.down.out_features
    assert_same_deltas(lora, loaded_lora(path))


@torch.no_grad()
@pytest.mark.parametrize("spelling", ["kohya", "diffusion_model", "base_model.model"])
def test_a_fused_module_becomes_parts_that_share_its_down(tmp_path, spelling):
    """Every module of BFL's, with a dense `up` as kohya's scripts train it."""
    weights, expected, path = {}, {}, tmp_path / "lora.safetensors"
    for name in BFL_LINEARS:
        outputs, inputs = WEIGHTS[f"{name}.weight"].shape
        down, up = torch.randn(2, inputs), torch.randn(outputs, 2)
        kohya = spelling == "kohya"
        stem = f"lora_unet_{name.replace('.', '_')}" if kohya else f"{spelling}.{name}"
        halves = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
        weights |= {f"{stem}.{half}.weight": value for half, value in zip(halves, (down, up))}
        weights[f"{stem}.alpha"] = torch.tensor(5.0)
        expected[name] = 2.5 * F.linear(F.linear(module_input(name), down), up)
    save_file(weights, path)
    loaded, lora = load_lora(path), loaded_lora(path)
    assert loaded.layout == "kohya" and loaded.dims is None and loaded.report.unused == []
    assert {rank for _, _, rank, _ in loaded.shapes.values()} == {2}
    for name in BFL_LINEARS:
        torch.testing.assert_close(lora.delta(name, module_input(name)), expected[name], rtol=1e-4, atol=1e-4, msg=name)


def omini_names(double, single):
    """The 343 names of OminiControl's public LoRAs at FLUX.1-dev's 19 and 38 blocks."""
    image = ("norm1.linear", "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.2")
    joint = ("norm.linear", "proj_mlp", "proj_out", "attn.to_q", "attn.to_k", "attn.to_v")
    names = [f"transformer_blocks.{i}.{name}" for i in range(double) for name in image]
    return ["x_embedder", *names, *(f"single_transformer_blocks.{i}.{name}" for i in range(single) for name in joint)]


def test_ominicontrols_public_loras_are_recognized_without_a_header(tmp_path):
    assert set(lora_targets(FLUX_DEV)) == set(omini_names(19, 38))
    names, path = omini_names(2, 2), tmp_path / "lora.safetensors"

    def mode_of(names):
        save_file(foreign(random_lora(names), "transformer.{}", "lora_A", "lora_B", alpha=None), path)
        return load_lora(path).mode

    assert mode_of(names) == OMINI
    for text in ("norm1_context.linear", "attn.add_q_proj", "attn.to_add_out", "ff_context.net.2"):
        assert mode_of([*names, f"transformer_blocks.0.{text}"]) == KONTEXT
    assert mode_of([*names, "context_embedder"]) == KONTEXT
    assert mode_of([name for name in names if "attn" in name]) == KONTEXT
    for kind in ("x_embedder", "norm1.linear", ".norm.linear"):
        assert mode_of([name for name in names if kind not in name]) == KONTEXT


def test_a_header_decides_the_mode_against_the_modules(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_lora(path, random_lora(lora_targets(TINY)), {}, KONTEXT)
    assert load_lora(path).mode == KONTEXT
    save_lora(path, random_lora(["proj_out"]), {"mode": "the caller's"}, OMINI)
    assert load_lora(path).mode == OMINI


def test_weights_for_other_models_are_reported_as_unused(tmp_path):
    weights = foreign(random_lora(["proj_out"]), "transformer.{}", "lora_A", "lora_B", alpha=None)
    others = ["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "text_encoder.final.lora_A.weight"]
    save_file(weights | {key: torch.ones(1, 2) for key in others}, tmp_path / "lora.safetensors")
    report = load_lora(tmp_path / "lora.safetensors").report
    assert set(report.matched) == set(weights) and report.unused == others


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_lora(path, random_lora(lora_targets(TINY)), {}, OMINI)
    return path


def rewrite(path, change_weights=lambda weights: None, **metadata):
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | metadata
    change_weights(weights)
    save_file(weights, path, metadata)


def with_weights(prefix="transformer.x_embedder.", **weights):
    return lambda path: rewrite(path, lambda all_of_them: all_of_them.update({prefix + k: v for k, v in weights.items()}))


def without(key):
    return lambda path: rewrite(path, lambda weights: weights.pop(key))


DOWN, UP = (f"transformer.x_embedder.lora_{half}.weight" for half in "AB")
UNUSABLE = {
    "pickle": (lambda path: path.write_bytes(pickle.dumps({})), "cannot be read as a safetensors file"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read as a safetensors file"),
    "absent": (lambda path: path.unlink(), "cannot be read"),
    "an adapter": (
        lambda path: save_adapter(path, FluxIRAdapter(AdapterConfig(TINY, 2, 3)), {}),
        "is a FluxIR adapter, not a LoRA",
    ),
    "a base": (lambda path: save_file(WEIGHTS, path), "holds no LoRA for FLUX"),
    "SDXL's": (
        lambda path: save_file({f"lora_unet_mid_block_0.lora_{h}.weight": torch.ones(1, 1) for h in ("up", "down")}, path),
        "holds no LoRA for FLUX",
    ),
    "later version": (lambda path: rewrite(path, format_version="2"), "has format version 2"),
    "unknown mode": (lambda path: rewrite(path, mode='{"tokens": "some"}'), "unreadable mode or base .*'some'"),
    "no mode": (lambda path: rewrite(path, mode="{"), "unreadable mode or base"),
    "no dims": (lambda path: rewrite(path, dims="[]"), "unreadable mode or base"),
    "no up": (without(UP), rf"1 missing \({UP}\)"),
    "no down": (without(DOWN), rf"1 missing \({DOWN}\)"),
    "NaN": (with_weights(**{"lora_B.weight": torch.full((128, 1), torch.nan)}), f"{UP} holds NaN"),
    "infinite": (with_weights(**{"lora_A.weight": torch.full((1, 64), torch.inf)}), f"{DOWN} holds NaN or infinite"),
    "infinite alpha": (with_weights(alpha=torch.tensor(torch.inf)), "x_embedder.alpha holds NaN or infinite"),
    "ranks differ": (
        with_weights(**{"lora_A.weight": torch.ones(7, 64)}),
        rf"do not fit each other \({DOWN} \[7, 64\], {UP} \[128, 1\]\)",
    ),
    "rank 0": (with_weights(**{"lora_A.weight": torch.ones(0, 64), "lora_B.weight": torch.ones(128, 0)}), "do not fit"),
    "a convolution": (with_weights(**{"lora_A.weight": torch.ones(1, 64, 1, 1)}), "do not fit"),
    "many alphas": (with_weights(alpha=torch.ones(2)), "do not fit"),
    "twice": (
        with_weights("x_embedder.", **{"lora_A.weight": torch.ones(1, 64), "lora_B.weight": torch.ones(128, 1)}),
        "two LoRAs for x_embedder",
    ),
    "DoRA": (with_weights(dora_scale=torch.ones(128)), "a DoRA .*not supported"),
    "peft's DoRA": (with_weights(lora_magnitude_vector=torch.ones(128)), "a DoRA .*not supported"),
    "LoKr": (with_weights(lokr_w1=torch.ones(2, 2)), "a LoKr .*not supported"),
    "LoHa": (with_weights(hada_w1_a=torch.ones(2, 2)), "a LoHa .*not supported"),
    "GLoRA": (with_weights(**{"a1.weight": torch.ones(2, 2)}), "a GLoRA .*not supported"),
    "OFT": (with_weights(oft_blocks=torch.ones(2, 2, 2)), "an OFT .*not supported"),
    "a middle matrix": (with_weights(**{"lora_mid.weight": torch.ones(1, 1, 1, 1)}), "middle matrix .*not supported"),
    "whole weights": (with_weights(diff=torch.ones(128, 64)), "a change of whole weights .*not supported"),
    "another input": (with_weights(reshape_weight=torch.ones(2)), "an input of another size .*not supported"),
    "alpha is text": (lambda path: rewrite(path, lora_adapter_metadata='{"lora_alpha": "x"}'), "lora_adapter_metadata .*no number"),
    "alpha is NaN": (lambda path: rewrite(path, lora_adapter_metadata='{"lora_alpha": NaN}'), "lora_adapter_metadata .*no number"),
    "no configuration": (lambda path: rewrite(path, lora_adapter_metadata="[1]"), "unreadable lora_adapter_metadata"),
    "a deep one": (lambda path: rewrite(path, lora_adapter_metadata="[" * 10**5), "unreadable lora_adapter_metadata"),
    "a pattern": (
        lambda path: rewrite(path, lora_adapter_metadata='{"alpha_pattern": {"(a+)+$": 1}}'),
        "by a regular expression",
    ),
    "biases": (with_weights(**{"lora_B.bias": torch.ones(128)}), "a LoRA with biases .*not supported"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_refused_in_one_sentence(path, case):
    spoil, reason = UNUSABLE[case]
    spoil(path)
    with pytest.raises(WeightFileError, match=reason) as refused:
        load_lora(path)
    message = str(refused.value)
    assert message.startswith("lora.safetensors") and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize(("module", "outputs"), [("double_blocks_0_img_attn_qkv", 383), ("single_blocks_0_linear1", 384)])
def test_a_fused_module_that_cannot_be_split_is_refused(path, module, outputs):
    halves = {"down": torch.ones(2, 128), "up": torch.ones(outputs, 2)}
    save_file({f"lora_unet_{module}.lora_{half}.weight": value for half, value in halves.items()}, path)
    with pytest.raises(WeightFileError, match=rf"up.weight \[{outputs}, 2\]"):
        load_lora(path)


def test_a_wrong_base_is_refused_with_what_differs(path):
    loaded = load_lora(path)
    check_lora_base(loaded, TINY)
    check_lora_base(loaded, replace(TINY, single_blocks=38))
    with pytest.raises(WeightFileError, match=r"changes single_transformer_blocks\.1\.\S+, .*lacks it"):
        check_lora_base(loaded, replace(TINY, single_blocks=1))
    with pytest.raises(WeightFileError, match="changes x_embedder, 64 to 128 values, and this one has 16 to 128 there"):
        check_lora_base(loaded, replace(TINY, in_channels=16))


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
