"""FLUX weights in BFL's and diffusers' key layouts, and files that are not what the loaders take."""

from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions
from comfyui_fluxir.fluxir_core.flux.keymap import bfl_to_diffusers, diffusers_to_bfl
from comfyui_fluxir.training.diffusers_host.single_file import load_transformer, load_vae
from safetensors.torch import save_file

from ..hosts.tiny import TINY, flux_weights, vae_weights


@pytest.mark.parametrize("dims", [TINY, replace(TINY, guidance_embed=False, double_blocks=1, single_blocks=3)])
def test_layouts_convert_both_ways_without_loss(dims):
    weights = flux_weights(dims)
    there = bfl_to_diffusers(weights)
    back = diffusers_to_bfl(there)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)
    assert FluxDimensions.from_state_dict(there) == FluxDimensions.from_state_dict(weights) == dims


def test_fused_projections_split_in_the_order_query_key_value_mlp():
    weights = flux_weights()
    there, hidden = bfl_to_diffusers(weights), TINY.hidden_size
    qkv = weights["double_blocks.1.txt_attn.qkv.weight"]
    for name, piece in zip(("add_q_proj", "add_k_proj", "add_v_proj"), qkv.chunk(3)):
        assert torch.equal(there[f"transformer_blocks.1.attn.{name}.weight"], piece)
    mlp = there["single_transformer_blocks.0.proj_mlp.weight"]
    assert torch.equal(mlp, weights["single_blocks.0.linear1.weight"][3 * hidden :])


def test_the_last_modulations_shift_and_scale_trade_places():
    bias = flux_weights()["final_layer.adaLN_modulation.1.bias"]
    shift, scale = bias.chunk(2)
    assert torch.equal(bfl_to_diffusers(flux_weights())["norm_out.linear.bias"], torch.cat([scale, shift]))


def test_a_key_that_is_not_flux_is_refused():
    for convert, key in ((bfl_to_diffusers, "double_blocks.0.extra.weight"), (diffusers_to_bfl, "conv_in.weight")):
        with pytest.raises(KeyError):
            convert({key: torch.zeros(2)})


def test_weights_of_another_model_are_refused():
    with pytest.raises(ValueError, match="not a FLUX transformer's: img_in.weight is missing"):
        FluxDimensions.from_state_dict({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)})


def without(weights, key):
    return {name: value for name, value in weights.items() if name != key}


@pytest.mark.parametrize(
    ("load", "content", "reason"),
    [
        (load_transformer, b"not safetensors", "cannot be read as a safetensors file"),
        (load_transformer, vae_weights(), "is not a whole FLUX.1 transformer"),
        (load_transformer, without(flux_weights(), "single_blocks.1.linear2.bias"), "is not a whole FLUX.1"),
        (load_vae, b"not safetensors", "cannot be read as a safetensors file"),
        (load_vae, flux_weights(), "is not an autoencoder of 16 channels"),
        (load_vae, without(vae_weights(), "taesd_decoder.1.bias"), "is not an autoencoder of 16 channels"),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_an_unusable_model_file_is_refused_in_one_sentence(tmp_path, load, content, reason):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content) if isinstance(content, bytes) else save_file(content, path)
    with pytest.raises(ValueError, match=reason) as refused:
        load(path)
    message = str(refused.value)
    assert message.startswith("model.safetensors") and message.endswith(".") and "\n" not in message
