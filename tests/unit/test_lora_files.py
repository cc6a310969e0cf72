"""LoRA files for FLUX: every spelling that other programs write, what is refused, and for which base."""

import pickle
from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import save_adapter
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.dimensions import FLUX_DEV
from comfyui_fluxir.fluxir_core.flux.weight_files import WeightFileError
from comfyui_fluxir.fluxir_core.lora.files import check_lora_base, load_lora, save_lora
from comfyui_fluxir.fluxir_core.lora.lora import lora_targets
from comfyui_fluxir.fluxir_core.ummf.mode import KONTEXT, OMINI
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ..hosts.tiny import TINY
from .lora_cases import BFL_LINEARS, WEIGHTS, assert_same_deltas, loaded_lora, module_input, random_lora


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
    "alpha is text": (
        lambda path: rewrite(path, lora_adapter_metadata='{"lora_alpha": "x"}'),
        "lora_adapter_metadata .*an alpha is .x",
    ),
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
