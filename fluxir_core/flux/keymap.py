"""FLUX transformer weights between BFL's key layout (ComfyUI's) and diffusers'."""

import re

import torch

_EMBEDDERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}


_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}


_SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}


_DOUBLE_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


_SINGLE_FUSED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}


_BLOCKS = (
    ("double_blocks", "transformer_blocks", _DOUBLE, _DOUBLE_FUSED),
    ("single_blocks", "single_transformer_blocks", _SINGLE, _SINGLE_FUSED),
)
LYCORIS = {"linear_in": "net.0.proj", "linear_out": "net.2"}
"""What LyCORIS calls the feed-forward's modules."""
_FUSED_NAMES = [part for fused in (_DOUBLE_FUSED, _SINGLE_FUSED) for parts in fused.values() for part in parts]
_UNDERSCORED = {
    name.replace(".", "_"): name
    for names in (
        *(_EMBEDDERS, _DOUBLE, _SINGLE, _DOUBLE_FUSED, _SINGLE_FUSED),
        *(_EMBEDDERS.values(), _DOUBLE.values(), _SINGLE.values(), _FUSED_NAMES),
    )
    for name in names
} | {f"{name}_{theirs}": f"{name}.{ours}" for name in ("ff", "ff_context") for theirs, ours in LYCORIS.items()}
_BLOCK_NAMES = "|".join(name for names in _BLOCKS for name in names[:2])


def bfl_to_diffusers(state_dict):
    """A FLUX transformer's weights in diffusers' layout, from BFL's. Raises KeyError on a key that is not FLUX's.

    Fused q, k, v (and the single blocks' MLP input) are split; the last adaLN's shift and scale trade places.
    """
    converted = {}
    for key, value in state_dict.items():
        prefix, module, kind, names, fused = _locate(key, 0)
        kind = "weight" if kind == "scale" else kind
        if module in fused:
            parts = fused[module]
            width = _attention_width(state_dict, key)
            sizes = [width, width, width, value.shape[0] - 3 * width][: len(parts)]
            for part, piece in zip(parts, value.split(sizes)):
                converted[f"{prefix}{part}.{kind}"] = piece
        else:
            converted[f"{prefix}{names[module]}.{kind}"] = swap_halves(value) if "adaLN" in module else value
    return converted


def diffusers_to_bfl(state_dict):
    """The inverse of `bfl_to_diffusers`."""
    converted = {}
    for key, value in state_dict.items():
        prefix, module, kind, names, fused = _locate(key, 1)
        parts = next((parts for parts in fused if module in parts), None)
        if parts is None:
            name = names[module]
            # BFL calls the weight of its q and k norms `scale`.
            converted[f"{prefix}{name}.{'scale' if name.endswith('_norm') else kind}"] = (
                swap_halves(value) if "adaLN" in name else value
            )
        elif module == parts[0]:
            stem = key.removesuffix(f"{module}.{kind}")
            pieces = [state_dict[f"{stem}{part}.{kind}"] for part in parts]
            converted[f"{prefix}{fused[parts]}.{kind}"] = torch.cat(pieces)
    return converted


def diffusers_parts(module):
    """Names of the diffusers modules that BFL's `module` holds, in the order of its outputs. Raises KeyError."""
    prefix, name, _, names, fused = _locate(f"{module}.", 0)
    return tuple(f"{prefix}{part}" for part in fused.get(name) or (names[name],))


def bfl_module(module):
    """Name of BFL's module that holds diffusers' `module`. Raises KeyError when FLUX has no such module."""
    prefix, name, _, names, fused = _locate(f"{module}.", 1)
    return prefix + (next((fused[parts] for parts in fused if name in parts), None) or names[name])


def dotted(name):
    """A module's name in either layout whose dots are underscores in `name` ("double_blocks_0_img_attn_qkv"), as kohya's
    scripts write them. Raises KeyError when FLUX has no such module."""
    if not (match := re.fullmatch(rf"(?:({_BLOCK_NAMES})_(\d+)_)?(.+)", name)):
        raise KeyError(name)
    blocks, index, module = match.groups()
    return (f"{blocks}.{index}." if blocks else "") + _UNDERSCORED[module]


def _locate(key, side) -> tuple[str, str, str, dict, dict]:
    """Splits a key of layout `side` (0 BFL, 1 diffusers): (prefix in the other layout, module, kind, names, fused)."""
    module, _, kind = key.rpartition(".")
    for *layouts, names, fused in _BLOCKS:
        if module.startswith(layouts[side] + "."):
            index, _, module = module.removeprefix(layouts[side] + ".").partition(".")
            return (f"{layouts[1 - side]}.{index}.", module, kind, *_direction(names, fused, side))
    return ("", module, kind, *_direction(_EMBEDDERS, {}, side))


def _direction(names, fused, side) -> tuple[dict, dict]:
    return (names, fused) if side == 0 else ({v: k for k, v in names.items()}, {v: k for k, v in fused.items()})


def _attention_width(state_dict, key):
    """Width of q, k and v in a fused tensor: a third of qkv; linear1's is linear2's output."""
    if ".linear1." in key:
        return state_dict[key.replace(".linear1.", ".linear2.").rpartition(".")[0] + ".weight"].shape[0]
    return state_dict[key].shape[0] // 3


def swap_halves(value, dim=0):
    """`value` with the two halves of `dim` in the other order: the last adaLN's shift and scale."""
    return torch.cat(value.chunk(2, dim)[::-1], dim)
