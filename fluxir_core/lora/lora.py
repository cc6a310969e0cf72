"""Low-rank additions to FLUX's linear layers, named as in diffusers and applied in BFL's layout too (UMMF)."""

import re
from typing import Any

import torch
from torch import nn

from ..flux.keymap import bfl_module, diffusers_parts, swap_halves
from ..flux.layers import EMBEDDING_DIM

_TARGETS = re.compile(
    r"x_embedder"
    r"|transformer_blocks\.\d+\.(norm1\.linear|attn\.(to_[qkv]|to_out\.0)|ff\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.to_[qkv])"
)


def linear_sizes(dims):
    """(in_features, out_features) of every Linear of a FLUX transformer of `dims`, by its diffusers name."""
    hidden, mlp = dims.hidden_size, int(dims.hidden_size * dims.mlp_ratio)
    sizes = {
        "x_embedder": (dims.in_channels, hidden),
        "context_embedder": (dims.context_dim, hidden),
        "norm_out.linear": (hidden, 2 * hidden),
        "proj_out": (hidden, dims.in_channels),
    }
    embedders = {"timestep": EMBEDDING_DIM, "text": dims.vec_dim}
    if dims.guidance_embed:
        embedders["guidance"] = EMBEDDING_DIM
    for kind, inputs in embedders.items():
        sizes[f"time_text_embed.{kind}_embedder.linear_1"] = (inputs, hidden)
        sizes[f"time_text_embed.{kind}_embedder.linear_2"] = (hidden, hidden)
    square = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    double = {f"attn.{name}": (hidden, hidden) for name in square}
    for norm, feed_forward in (("norm1", "ff"), ("norm1_context", "ff_context")):
        double[f"{norm}.linear"] = (hidden, 6 * hidden)
        double[f"{feed_forward}.net.0.proj"] = (hidden, mlp)
        double[f"{feed_forward}.net.2"] = (mlp, hidden)
    single = {f"attn.{name}": (hidden, hidden) for name in square[:3]}
    single |= {"norm.linear": (hidden, 3 * hidden), "proj_mlp": (hidden, mlp), "proj_out": (hidden + mlp, hidden)}
    for blocks, count, modules in (
        ("transformer_blocks", dims.double_blocks, double),
        ("single_transformer_blocks", dims.single_blocks, single),
    ):
        sizes |= {f"{blocks}.{i}.{module}": size for i in range(count) for module, size in modules.items()}
    return sizes


def lora_targets(dims):
    """(in_features, out_features) of the modules that OminiControl's LoRAs change, by their diffusers names.

    They are those that the image's (and the condition's) tokens pass; rank 16 on FLUX.1-dev makes the 58 M parameters
    of arXiv 2603.22027.
    """
    return {name: size for name, size in linear_sizes(dims).items() if _TARGETS.fullmatch(name)}


def layer_key(name):
    """The key under which a LoRA keeps module `name`: torch forbids dots there."""
    return name.replace(".", "/")


class LoRALayer(nn.Module):
    """scale W_up W_down x, (..., in_features) to (..., out_features); `scale` is alpha / rank."""

    def __init__(self, in_features, out_features, rank, scale=1.0, ops=nn, **factory):
        super().__init__()
        self.down = ops.Linear(in_features, rank, bias=False, **factory)
        self.up = ops.Linear(rank, out_features, bias=False, **factory)
        self.scale = scale

    def forward(self, x):
        return self.up(self.down(x)) * self.scale


class LoRA(nn.Module):
    """A LoRA for a FLUX transformer, with a LoRALayer for each of its modules.

    Args:
        shapes: {diffusers module name: (in_features, out_features, rank, scale)}.
        dims: FluxDimensions of the transformer.
        ops: provides Linear: torch.nn, or ComfyUI's manual_cast.
        device, dtype: of the parameters; None for torch's defaults.

    Raises:
        KeyError: a name that such a transformer does not have.
    """

    def __init__(self, shapes, dims, ops: Any = nn, device=None, dtype=None):
        super().__init__()
        self.dims, self.shapes = dims, dict(shapes)
        self.layers = nn.ModuleDict(
            {layer_key(name): LoRALayer(*shape, ops=ops, device=device, dtype=dtype) for name, shape in shapes.items()}
        )
        sizes = linear_sizes(dims)
        self._parts = {
            module: [(layer_key(part), sizes[part][1]) for part in diffusers_parts(module)]
            for module in dict.fromkeys(map(bfl_module, shapes))
        }

    @classmethod
    def new(cls, dims, rank, alpha=None, **factory):
        """A LoRA to train, as `over`, for `lora_targets(dims)`.

        Args:
            dims: FluxDimensions of the transformer.
            rank: 1 or more.
            alpha: the output is scaled by alpha / rank; None for `rank`.
            factory: the LoRA's `ops`, `device` and `dtype`.

        Returns:
            A LoRA, its output zero.

        Raises:
            ValueError: the rank is below 1.
        """
        return cls.over(lora_targets(dims), dims, rank, alpha, **factory)

    @classmethod
    def over(cls, targets, dims, rank, alpha=None, **factory):
        """A LoRA to train, over `targets`.

        It starts as peft's "gaussian": `down` from N(0, 1 / rank^2), `up` zero.

        Args:
            targets: {diffusers module name: (in_features, out_features)}.
            dims: FluxDimensions of the transformer.
            rank: 1 or more.
            alpha: the output is scaled by alpha / rank; None for `rank`.
            factory: the LoRA's `ops`, `device` and `dtype`.

        Returns:
            A LoRA, its output zero.

        Raises:
            ValueError: the rank is below 1.
        """
        if rank < 1:
            raise ValueError(f"LoRA: rank is {rank}; use 1 or more.")
        scale = 1.0 if alpha is None else alpha / rank
        lora = cls({name: (*size, rank, scale) for name, size in targets.items()}, dims, **factory)
        for name, parameter in lora.named_parameters():
            if name.endswith(".down.weight"):
                nn.init.normal_(parameter, std=1 / rank)
            else:
                nn.init.zeros_(parameter)
        return lora

    @property
    def bfl_modules(self):
        """Names of the modules of BFL's layout that the LoRA changes."""
        return tuple(self._parts)

    def delta(self, name, x):
        """What the LoRA adds to the output of BFL's Linear `name` ("double_blocks.3.img_attn.qkv") for its input `x`
        (..., in_features): (..., out_features), or None when it changes nothing there.
        """
        if name not in self._parts:
            return None
        outputs = [self.layers[key](x) if key in self.layers else None for key, _ in self._parts[name]]
        like = next(output for output in outputs if output is not None)
        outputs = [
            like.new_zeros(*like.shape[:-1], width) if output is None else output
            for output, (_, width) in zip(outputs, self._parts[name])
        ]
        if "adaLN" in name:
            return swap_halves(outputs[0], -1)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
