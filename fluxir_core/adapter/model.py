"""The FluxIR adapter (arXiv 2504.15159, section 3.2)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ..flux.block import DoubleStreamBlock
from ..flux.dimensions import FluxDimensions
from ..flux.keymap import diffusers_to_bfl
from ..flux.layers import EMBEDDING_DIM, MLPEmbedder, attention, rotary_embedding, timestep_embedding


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter file must say to rebuild the adapter.

    Args:
        dims: FluxDimensions of the base.
        rank: of the SE layers, 1 or more; None for one full-rank Linear each.
        text_tokens: length of theta_p, in tokens.
        input: where M_i(z_lq) joins z_t: "hidden" after the image embedder, "token64" in token space, before it (equation 1 to
            the letter).
        inject: whether the i-th residual is added "after" or "before" block i.
        guidance: FLUX.1-dev's guidance embedding that the adapter was trained with.

    Raises:
        ValueError: another `input` or `inject`, or a rank below 1.
    """

    dims: FluxDimensions
    rank: int | None
    text_tokens: int
    input: str = "hidden"
    inject: str = "after"
    guidance: float = 4.0

    def __post_init__(self):
        for name, value, allowed in (
            ("input", self.input, ("hidden", "token64")),
            ("inject", self.inject, ("after", "before")),
        ):
            if value not in allowed:
                raise ValueError(f"AdapterConfig: {name} is {value!r}; use {' or '.join(map(repr, allowed))}.")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"AdapterConfig: rank is {self.rank}; use 1 or more, or None for full rank.")


class Condition(NamedTuple):
    """What does not depend on x_t and t: M_i(z_lq) (B, N, C), embedded text (B, L, hidden), embedded pooled text
    (B, hidden), and the rotary embedding of [text; image]."""

    degraded: torch.Tensor
    text: torch.Tensor
    pooled: torch.Tensor
    rotary: tuple


class SELayer(nn.Module):
    """SE(x) = W_e (W_s x + B_s) + B_e (equation 3), (B, N, dim) both ways, no activation; W_e and B_e start at zero."""

    def __init__(self, dim, rank, ops=nn, **kwargs):
        super().__init__()
        self.squeeze = ops.Linear(dim, rank, **kwargs)
        self.excite = ops.Linear(rank, dim, **kwargs)

    def forward(self, x):
        return self.excite(self.squeeze(x))


class Control:
    """The adapter's output for one model call; a block's residual is computed when it is asked for."""

    def __init__(self, image, text, se_image, se_text):
        self._image, self._text, self._se_image, self._se_text = image, text, se_image, se_text

    def image(self, index, like):
        """z_c of block `index` (double blocks first), (B, N, hidden) in the type of `like` (equation 4)."""
        return self._se_image[index](self._image).to(like)

    def text(self, index, like):
        """p_c of block `index`, (B, L, hidden) in the type of `like` (equation 4)."""
        return self._se_text[index](self._text).to(like)


class FluxIRAdapter(nn.Module):
    """One MM-DiT block with its own embedders, and an SE layer for each stream of each of the base's blocks.

    Parameters are named as in BFL's FLUX.

    Args:
        config: AdapterConfig.
        ops: provides Linear, LayerNorm and RMSNorm: torch.nn, or ComfyUI's manual_cast.
        attention: `attention(q, k, v)` takes (B, heads, N, head_dim) and returns (B, N, hidden); by default torch's own.
        device, dtype: of the parameters; None for torch's defaults.
    """

    null_text: torch.Tensor
    null_pooled: torch.Tensor

    def __init__(self, config, ops: Any = nn, attention=attention, device=None, dtype=None):
        super().__init__()
        self.config = config
        dims, factory = config.dims, {"device": device, "dtype": dtype}
        hidden = dims.hidden_size
        self.img_in = ops.Linear(dims.in_channels, hidden, **factory)
        self.txt_in = ops.Linear(dims.context_dim, hidden, **factory)
        self.time_in = MLPEmbedder(EMBEDDING_DIM, hidden, ops, **factory)
        self.vector_in = MLPEmbedder(dims.vec_dim, hidden, ops, **factory)
        if dims.guidance_embed:
            self.guidance_in = MLPEmbedder(EMBEDDING_DIM, hidden, ops, **factory)
        lq_out = hidden if config.input == "hidden" else dims.in_channels
        self.lq_in = ops.Linear(dims.in_channels, lq_out, **factory)
        self.theta_p = nn.Parameter(torch.zeros(config.text_tokens, dims.context_dim, **factory))
        self.theta_y = nn.Parameter(torch.zeros(dims.vec_dim, **factory))
        self.double_block = DoubleStreamBlock(hidden, dims.num_heads, dims.mlp_ratio, attention, ops, **factory)
        self.se_image, self.se_text = (nn.ModuleList(self._se_layer(ops, factory) for _ in range(dims.blocks)) for _ in range(2))
        if config.inject == "after":
            # FLUX drops the text after its last block: this layer is counted (Table 2) but nothing can train it.
            self.se_text[-1].requires_grad_(False)
        # The base's embedding of the empty prompt, for graphs without a text encoder; an all-zero prompt unless set.
        self.register_buffer("null_text", torch.zeros(config.text_tokens, dims.context_dim, **factory))
        self.register_buffer("null_pooled", torch.zeros(dims.vec_dim, **factory))

    def _se_layer(self, ops, factory):
        hidden, rank = self.config.dims.hidden_size, self.config.rank
        return ops.Linear(hidden, hidden, **factory) if rank is None else SELayer(hidden, rank, ops, **factory)

    @torch.no_grad()
    def init_from_base(self, state_dict):
        """Copies the embedders and the first double block of the base (BFL's or diffusers' layout) and zeroes M_i and
        the SE layers' excitation, so that the base's output is unchanged. Raises KeyError when a weight is missing."""
        if "x_embedder.weight" in state_dict:
            state_dict = diffusers_to_bfl(state_dict)
        base = {key.replace(".scale", ".weight"): value for key, value in state_dict.items()}
        for name in ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "double_block"):
            module = getattr(self, name, None)
            for key, parameter in module.named_parameters() if module is not None else ():
                parameter.copy_(base[f"{'double_blocks.0' if name == 'double_block' else name}.{key}"])
        rank = self.config.rank
        excitations = [layer if rank is None else layer.get_submodule("excite") for layer in (*self.se_image, *self.se_text)]
        for layer in (self.lq_in, *excitations):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def prepare(self, lq_tokens, text, pooled, image_ids):
        """Computes the Condition of one image, once: nothing in it depends on x_t or t.

        Args:
            lq_tokens: the degraded latent's, (B, N, 64).
            text: the prompt's embedding, (B, L, context). theta_p is added to it: its first L rows, or all of it on the first rows
                of a longer prompt.
            pooled: the prompt's pooled embedding, (B, vec), to which theta_y is added.
            image_ids: positions of the image's tokens, (N, 3) or (B, N, 3).

        Returns:
            A Condition.
        """
        if image_ids.ndim == 2:
            image_ids = image_ids[None]
        rows = min(text.shape[1], self.config.text_tokens)
        learned = nn.functional.pad(self.theta_p[:rows].to(text), (0, 0, 0, text.shape[1] - rows))
        text_ids = image_ids.new_zeros(len(image_ids), text.shape[1], image_ids.shape[-1])
        return Condition(
            degraded=self.lq_in(lq_tokens),
            text=self.txt_in(text + learned),
            pooled=self.vector_in(pooled + self.theta_y.to(pooled)),
            rotary=rotary_embedding(torch.cat([text_ids, image_ids], 1), self.config.dims.axes_dim, self.config.dims.theta),
        )

    def forward(self, image_tokens, timestep, guidance, condition):
        """Computes f_z, f_p = D(z_c, p_c, y_c, t) (equations 1 and 2).

        Args:
            image_tokens: x_t, (B, N, 64).
            timestep: (B,) in [0, 1].
            guidance: (B,), or None for the config's; a base without a guidance embedding does not read it.
            condition: what `prepare` gave.

        Returns:
            The Control of this call.
        """
        if self.config.input == "hidden":
            image = self.img_in(image_tokens) + condition.degraded
        else:
            image = self.img_in(image_tokens + condition.degraded)
        vector = self.time_in(timestep_embedding(timestep, EMBEDDING_DIM).to(image_tokens)) + condition.pooled
        if self.config.dims.guidance_embed:
            if guidance is None:
                guidance = torch.full_like(timestep, self.config.guidance)
            vector = vector + self.guidance_in(timestep_embedding(guidance, EMBEDDING_DIM).to(image_tokens))
        image, text = self.double_block(image, condition.text, vector, condition.rotary)
        return Control(image, text, self.se_image, self.se_text)
