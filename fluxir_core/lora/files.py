"""LoRA files in diffusers' (peft's) and kohya's key layouts."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ..adapter.checkpoint import KIND as ADAPTER_KIND
from ..flux.dimensions import FluxDimensions
from ..flux.keymap import LYCORIS, bfl_module, diffusers_parts, dotted, swap_halves
from ..flux.weight_files import (
    FORMAT_VERSION,
    LoadReport,
    WeightFileError,
    check_finite,
    check_version,
    read_dims,
    read_fields,
    read_json,
    read_safetensors,
    write_safetensors,
)
from ..ummf.mode import KONTEXT, OMINI, ConditionMode
from .lora import layer_key, linear_sizes
from .peft_scales import PeftScales

KIND = "ummf_lora"


FEW_STEPS = "few_step_lora"
PLAIN = "plain_lora"
"""The kinds of LoRAs that change the base's every token and show it no image."""
PEFT = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration in a file's header."""
_KEY = re.compile(r"(.+?)(\.lora[._]|\.lora_linear_layer\.|_lora[12]?\.)(A|B|down|up)(?:\.default)?(?:\.weight)?")
_PARTNER = {"A": "B", "B": "A", "down": "up", "up": "down"}


_PREFIXES = re.compile(r"(?:base_model\.model\.|transformer\.|diffusion_model\.)*")
_UNDERSCORED = re.compile(r"(?:lora_unet|lora_transformer|lycoris)_(.+)")
_ELSEWHERE = {  # other programs' names of FLUX's modules, to those of BFL or diffusers
    "processor.qkv_lora1.": "img_attn.qkv",
    "processor.qkv_lora2.": "txt_attn.qkv",
    "processor.proj_lora1.": "img_attn.proj",
    "processor.proj_lora2.": "txt_attn.proj",
    "processor.qkv_lora.": "linear1_qkv",
    "processor.proj_lora.": "linear2",
    **{f"{name}.{theirs}": f"{name}.{ours}" for name in ("ff", "ff_context") for theirs, ours in LYCORIS.items()},
}
_OMINI = (r"x_embedder", r"transformer_blocks\.\d+\.norm1\.linear", r"single_transformer_blocks\.\d+\.norm\.linear")


_TEXT_STREAM = re.compile(r"norm1_context|attn\.add_|to_add_out|ff_context|context_embedder")


_UNSUPPORTED = {
    "a DoRA": re.compile(r"dora_scale|lora_magnitude_vector"),
    "a LoKr": re.compile(r"\.lokr_"),
    "a LoHa": re.compile(r"\.hada_"),
    "a GLoRA": re.compile(r"\.[ab][12]\.weight"),
    "an OFT": re.compile(r"\.oft_"),
    "a LoRA with a middle matrix": re.compile(r"\.lora_mid\."),
    "a LoRA with biases": re.compile(r"\.lora[._](B|up)(\.default)?\.bias"),
    "a LoRA for an input of another size": re.compile(r"\.reshape_weight"),
    "a change of whole weights": re.compile(r"\.(diff|diff_b|set_weight|w_norm|b_norm)$"),
}


@dataclass
class LoadedLoRA:
    """A LoRA file's content: rebuild it with `LoRA(shapes, dims)` and `load_state_dict(state_dict)`.

    `shapes` holds (in_features, out_features, rank, scale) by diffusers module name. `dims` is None when the file does
    not state its base's sizes. `layout` is "diffusers", or "kohya" for modules named and fused as BFL's.
    """

    shapes: dict[str, tuple[int, int, int, float]]
    state_dict: dict[str, torch.Tensor]
    mode: ConditionMode
    dims: FluxDimensions | None
    metadata: dict[str, str]
    layout: str
    report: LoadReport


def save_lora(path, lora, metadata, mode, layout="diffusers"):
    """Writes a UMMF LoRA's file, atomically.

    The scale is multiplied into `up`, so that alpha equals the rank: diffusers' and ComfyUI's loaders agree on that alone
    (FluxTransformer2DModel.load_lora_adapter ignores alpha keys).

    Args:
        path: of the file.
        lora: LoRA.
        metadata: str to str.
        mode: ConditionMode, how the LoRA reads images.
        layout: "diffusers" (peft's keys, for diffusers and ComfyUI) or "kohya" (BFL's fused modules, for ComfyUI and kohya's
            scripts; diffusers drops its x_embedder).

    Raises:
        ValueError: the layout is another one.
    """
    if layout not in ("diffusers", "kohya"):
        raise ValueError(f"save_lora: layout is {layout!r}; use 'diffusers' or 'kohya'.")
    described = {**metadata, "format_version": FORMAT_VERSION, "kind": KIND, "mode": json.dumps(asdict(mode))}
    save_layers(path, lora, described, layout)


def save_layers(path, lora, metadata, layout="diffusers"):
    """Writes the weights of a LoRA with its base's sizes, in the way of `save_lora`.

    Args:
        path: of the file.
        lora: LoRA.
        metadata: str to str.
        layout: as `save_lora`'s.
    """
    described = {
        **metadata,
        "dims": json.dumps(asdict(lora.dims)),
        "rank": ", ".join(map(str, sorted({rank for _, _, rank, _ in lora.shapes.values()}))),
    }
    layers = {name: lora.layers[layer_key(name)] for name in lora.shapes}
    pairs = {
        name: (layer.down.weight.detach().cpu(), layer.up.weight.detach().cpu() * layer.scale) for name, layer in layers.items()
    }
    write_safetensors(path, _diffusers_keys(pairs) if layout == "diffusers" else _kohya_keys(pairs, lora), described)


def _diffusers_keys(pairs):
    weights = {}
    for name, (down, up) in pairs.items():
        weights[f"transformer.{name}.lora_A.weight"] = down
        weights[f"transformer.{name}.lora_B.weight"] = up
    return weights


def _kohya_keys(pairs, lora):
    """The parts of a fused module become one LoRA of the sum of their ranks: `down` stacked, `up` block-diagonal."""
    weights, sizes = {}, linear_sizes(lora.dims)
    for module in lora.bfl_modules:
        parts = diffusers_parts(module)
        down = torch.cat([pairs[part][0] for part in parts if part in pairs])
        up = torch.block_diag(*(pairs[part][1] if part in pairs else down.new_zeros(sizes[part][1], 0) for part in parts))
        stem = f"lora_unet_{module.replace('.', '_')}"
        weights[f"{stem}.lora_down.weight"] = down
        weights[f"{stem}.lora_up.weight"] = swap_halves(up) if "adaLN" in module else up
        weights[f"{stem}.alpha"] = torch.tensor(float(len(down)))
    return weights


def load_lora(path):
    """Reads a LoRA for FLUX, in whatever keys ComfyUI's and diffusers' loaders read, into diffusers' modules. Returns a
    LoadedLoRA. Where a module has no alpha of its own, diffusers' header states it, or it is the rank.

    A file that states no mode is OMINI when it changes OminiControl's modules and none of the text's, else KONTEXT; a
    few-step LoRA, which changes all tokens, is KONTEXT.
    Raises WeightFileError on a file that is not safetensors (a pickle is never opened), is truncated, is a FluxIR
    adapter, has another version, holds no LoRA for FLUX or one of another kind (DoRA, LoKr, whole weights, ...), lacks
    weights, has weights whose shapes do not fit each other, or holds NaN or infinity.
    """
    name = Path(path).name
    metadata, weights = read_safetensors(path)
    mode, dims = _read_description(name, metadata)
    for key in weights:
        for kind, mark in _UNSUPPORTED.items():
            if mark.search(key):
                raise WeightFileError(f"{name} holds {kind} ({key}), which is not supported; choose a plain LoRA.")
    pairs, report = _find_pairs(name, weights)
    stated = _peft_scales(name, metadata)
    shapes, state_dict = {}, {}
    for pair in pairs:
        for part, down, up, scale in _read_pair(name, pair, weights, stated):
            if part in shapes:
                raise WeightFileError(f"{name} holds two LoRAs for {part} (one is {pair.down}); export it again.")
            shapes[part] = (down.shape[1], up.shape[0], down.shape[0], scale)
            state_dict[f"layers.{layer_key(part)}.down.weight"] = down
            state_dict[f"layers.{layer_key(part)}.up.weight"] = up
    layout = "kohya" if any(pair.bfl for pair in pairs) else "diffusers"
    return LoadedLoRA(shapes, state_dict, mode or _guess_mode(shapes), dims, metadata, layout, report)


def _read_description(name, metadata):
    """The mode and the base's sizes that the header states; None and None when `save_lora` did not write the file."""
    if metadata.get("kind") == ADAPTER_KIND:
        raise WeightFileError(f"{name} is a FluxIR adapter, not a LoRA; choose it in Load FluxIR Adapter.")
    if metadata.get("kind") not in (KIND, FEW_STEPS):
        return None, None
    check_version(name, metadata)
    try:
        mode = KONTEXT if metadata["kind"] == FEW_STEPS else read_fields(ConditionMode, read_json(metadata, "mode"))
        return mode, read_dims(read_json(metadata, "dims"))
    except ValueError as error:
        raise WeightFileError(f"{name} has an unreadable mode or base ({error}); export it again.") from None


class _Pair(NamedTuple):
    """diffusers' names of what a file's LoRA changes, whether the file uses BFL's, and its keys there."""

    parts: tuple
    bfl: bool
    down: str
    up: str
    alpha: str


def _peft_scales(name, metadata):
    """The PeftScales of diffusers' header."""
    try:
        stated = read_json(metadata, PEFT) if PEFT in metadata else {}
        if isinstance(stated, dict) and any(key.startswith("transformer.") for key in stated):  # a pipeline's, else its own
            stated = {key.removeprefix("transformer."): value for key, value in stated.items()}
        return PeftScales(stated)
    except ValueError as error:
        raise WeightFileError(f"{name} has an unreadable {PEFT} ({error}); save the LoRA again.") from None


def _find_pairs(name, weights):
    """The file's _Pairs and the LoadReport."""
    pairs, missing = [], []
    for key in weights:
        match = _KEY.fullmatch(key)
        if match is None:
            continue
        parts, bfl = _parts(match[1], match[2])
        if parts:
            partner = key[: match.start(3)] + _PARTNER[match[3]] + key[match.end(3) :]
            if partner not in weights:
                missing.append(partner)
            elif match[3] in ("A", "down"):
                pairs.append(_Pair(parts, bfl, key, partner, f"{match[1]}.alpha"))
    matched = [key for pair in pairs for key in (pair.down, pair.up, pair.alpha) if key in weights]
    report = LoadReport(matched, missing, unused=sorted(weights.keys() - set(matched)))
    if missing:
        raise WeightFileError(f"{name} is incomplete: {report}; export it again.")
    if not pairs:
        raise WeightFileError(f"{name} holds no LoRA for FLUX ({report}); choose a LoRA made for FLUX.1.")
    return pairs, report


def _parts(stem, joint):
    """diffusers' names of what a key's `stem` names, none when it is not FLUX's, and whether the name is BFL's. `joint` is
    what stands between the stem and the half of the pair."""
    name = _PREFIXES.sub("", stem, count=1)
    underscored = _UNDERSCORED.fullmatch(stem)
    try:
        if underscored:
            name = dotted(underscored[1])
        for theirs, module in _ELSEWHERE.items():
            if f"{name}{joint}".endswith(theirs):
                name = f"{name}{joint}".removesuffix(theirs) + module
            elif name.endswith(f".{theirs}"):
                name = name.removesuffix(theirs) + module
        if name.endswith(".linear1_qkv"):
            return diffusers_parts(name.removesuffix("_qkv"))[:3], True
        return diffusers_parts(name), True
    except KeyError:
        pass
    try:
        bfl_module(name)
        return (name,), False
    except KeyError:
        return (), False


def _read_pair(name, pair, weights, stated):
    """Yields (diffusers name, down, up, scale) of what a _Pair changes; the parts of a fused module share `down`."""
    down, up, alpha = (weights.get(key) for key in pair[2:])
    for key in pair[2:]:
        if key in weights:
            check_finite(name, key, weights[key].float() if key == pair.alpha else weights[key])
    fits = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] > 0
    if fits and len(pair.parts) > 1:  # q, k, v as wide as the input, and in single blocks what is left for the MLP
        mlp = len(up) - 3 * down.shape[1]
        fits = mlp > 0 if len(pair.parts) == 4 else mlp == 0
    if not fits or (alpha is not None and alpha.numel() != 1):
        shapes = ", ".join(f"{key} {list(weights[key].shape)}" for key in pair[2:] if key in weights)
        raise WeightFileError(f"{name} has shapes that do not fit each other ({shapes}); export it again.")

    def scale(part):
        return stated.of(part, len(down)) if alpha is None else alpha.item() / len(down)

    if len(pair.parts) == 1:
        [part] = pair.parts
        yield part, down, swap_halves(up) if pair.bfl and "norm_out" in part else up, scale(part)
        return
    for part, rows in zip(pair.parts, up.split([*[down.shape[1]] * 3, mlp][: len(pair.parts)])):
        used = (rows != 0).any(0)  # of a block-diagonal `up`, a part takes its own block: an exact inverse of save_lora
        if used.any():
            yield part, down[used], rows[:, used], scale(part)


def diffusers_weights(loaded):
    """The weights of `loaded` (LoadedLoRA) as ComfyUI's and diffusers' loaders read them, whatever the file's spelling."""
    weights = {}
    for name, (_, _, rank, scale) in loaded.shapes.items():
        for half, matrix in (("A", "down"), ("B", "up")):
            weights[f"transformer.{name}.lora_{half}.weight"] = loaded.state_dict[f"layers.{layer_key(name)}.{matrix}.weight"]
        weights[f"transformer.{name}.alpha"] = torch.tensor(float(scale * rank))
    return weights


def check_lora_base(loaded, dims):
    """Raises WeightFileError unless every module of `loaded` (LoadedLoRA) is one of a base of `dims`, in its sizes."""
    sizes = linear_sizes(dims)
    for name, (inputs, outputs, _, _) in loaded.shapes.items():
        if sizes.get(name) != (inputs, outputs):
            theirs = "has {} to {} there".format(*sizes[name]) if name in sizes else "lacks it"
            raise WeightFileError(
                f"The LoRA was made for another base model (it changes {name}, {inputs} to {outputs} values, and this one "
                f"{theirs}); choose the LoRA made for this one."
            )


def _guess_mode(names):
    """OminiControl's LoRAs change the image embedder and the modulations, and nothing of the text's."""
    omini = all(any(re.fullmatch(target, name) for name in names) for target in _OMINI)
    return OMINI if omini and not any(_TEXT_STREAM.search(name) for name in names) else KONTEXT
