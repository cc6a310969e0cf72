"""LucidFlux's networks (arXiv 2509.22414): two condition branches, their modulation, and the connector of semantic tokens.

Parameters are named as in the public file, but for the norms of queries and keys, which it calls `scale`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..flux.block import DoubleStreamBlock
from ..flux.dimensions import FluxDimensions
from ..flux.layers import EMBEDDING_DIM, MLPEmbedder, attention, rotary_embedding, timestep_embedding
from ..flux.tokens import pack_latents

HINT_CHANNELS = 16
HINT_STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)
"""Of the convolutions that bring an image to the latent's size."""

SCALE = 8
"""Pixels a side of an image for one latent pixel."""

GUIDANCE = 4.0
"""FLUX.1-dev's guidance that the published images were made with."""


@dataclass(frozen=True)
class LucidFluxConfig:
    """What the weights say of their sizes.

    `dims` are the base's, but that its `double_blocks` are the branches' own (2), and `single_blocks` 0. `features` is the
    width of the image encoder's tokens (SigLIP 2 so400m: 1152), `connector` the connector's inner width.
    """

    dims: FluxDimensions
    features: int
    connector: int


class Conditions(NamedTuple):
    """What does not depend on x_t and t, for both branches: embedded images (B, N, hidden), text (B, L, hidden) and pooled
    text (B, hidden), each (of the degraded image, of the cleaned one), and the rotary embedding of [text; image]."""

    hints: tuple
    texts: tuple
    pooled: tuple
    rotary: tuple


class TimeEmbedder(nn.Module):
    """Linear, SiLU, Linear on the 256 cosines and sines of a number."""

    def __init__(self, dim, ops=nn, **kwargs):
        super().__init__()
        self.linear_1 = ops.Linear(EMBEDDING_DIM, dim, **kwargs)
        self.linear_2 = ops.Linear(dim, dim, **kwargs)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Modulation(nn.Module):
    """Shifts and scales a branch's residual by the timestep and the number of the block that it is for.

    `residual` (B, N, dim), `timestep` (B,) in [0, 1], `block` an int; the result is shaped as the residual.
    """

    def __init__(self, dim, ops=nn, **kwargs):
        super().__init__()
        self.linear = ops.Linear(dim, 2 * dim, **kwargs)
        self.norm = ops.LayerNorm(dim, elementwise_affine=False, eps=1e-6, **kwargs)
        self.timestep_embedder = TimeEmbedder(dim, ops, **kwargs)
        self.control_index_embedder = TimeEmbedder(dim, ops, **kwargs)

    def forward(self, residual, timestep, block):
        number = torch.full_like(timestep, block, dtype=torch.float32) / 1000  # the embedding is of 1000 times its input
        embedded = self.timestep_embedder(timestep_embedding(timestep).to(residual))
        embedded = embedded + self.control_index_embedder(timestep_embedding(number).to(residual))
        shift, scale = self.linear(F.silu(embedded))[:, None].chunk(2, -1)
        return self.norm(residual) * (1 + scale) + shift


class ConditionBranch(nn.Module):
    """A FLUX of its own of a few double blocks, which sees x_t and one image: XLabs' ControlNet for FLUX."""

    def __init__(self, dims, ops=nn, attention=attention, **kwargs):
        super().__init__()
        hidden = dims.hidden_size
        self.guided = dims.guidance_embed
        self.img_in = ops.Linear(dims.in_channels, hidden, **kwargs)
        self.txt_in = ops.Linear(dims.context_dim, hidden, **kwargs)
        self.time_in = MLPEmbedder(EMBEDDING_DIM, hidden, ops, **kwargs)
        self.vector_in = MLPEmbedder(dims.vec_dim, hidden, ops, **kwargs)
        if self.guided:
            self.guidance_in = MLPEmbedder(EMBEDDING_DIM, hidden, ops, **kwargs)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(hidden, dims.num_heads, dims.mlp_ratio, attention, ops, **kwargs) for _ in range(dims.double_blocks)
        )
        self.controlnet_blocks = nn.ModuleList(ops.Linear(hidden, hidden, **kwargs) for _ in range(dims.double_blocks))
        self.pos_embed_input = ops.Linear(4 * HINT_CHANNELS, hidden, **kwargs)
        layers = []
        for inputs, stride in zip((3, *[HINT_CHANNELS] * 7), HINT_STRIDES):
            layers += [ops.Conv2d(inputs, HINT_CHANNELS, 3, stride, 1, **kwargs), nn.SiLU()]
        self.input_hint_block = nn.Sequential(*layers[:-1])

    def hint(self, images):
        """`images` (B, 3, 8 H, 8 W) in [0, 1] as embedded tokens (B, H/2 W/2, hidden); odd latent sizes are padded."""
        latents = self.input_hint_block(2 * images - 1)
        latents = F.pad(latents, (0, latents.shape[-1] % 2, 0, latents.shape[-2] % 2))
        return self.pos_embed_input(pack_latents(latents))

    def forward(self, tokens, timestep, guidance, hint, text, pooled, rotary):
        """Computes the branch's residuals, one for each of its blocks.

        Args:
            tokens: x_t, (B, N, 64).
            timestep: (B,) in [0, 1].
            guidance: (B,); read where the branch embeds it.
            hint: the embedded image, (B, N, hidden).
            text: the embedded text, (B, L, hidden).
            pooled: the embedded pooled text, (B, hidden).
            rotary: the rotary embedding of [text; image].

        Returns:
            A list of (B, N, hidden).
        """
        image = self.img_in(tokens) + hint
        vector = self.time_in(timestep_embedding(timestep).to(image)) + pooled
        if self.guided:
            vector = vector + self.guidance_in(timestep_embedding(guidance).to(image))
        residuals = []
        for block, out in zip(self.double_blocks, self.controlnet_blocks):
            image, text = block(image, text, vector, rotary)
            residuals.append(out(image))
        return residuals


class Connector(nn.Module):
    """The image encoder's tokens (B, M, features) as text tokens (B, M, context): FLUX Redux's two layers."""

    def __init__(self, config, ops=nn, **kwargs):
        super().__init__()
        self.redux_up = ops.Linear(config.features, config.connector, **kwargs)
        self.redux_down = ops.Linear(config.connector, config.dims.context_dim, **kwargs)

    def forward(self, features):
        return self.redux_down(F.silu(self.redux_up(features)))


class Control:
    """The residuals of one model call; a block's is modulated when it is asked for."""

    def __init__(self, network, branches, timestep):
        self._network, self._branches, self._timestep = network, branches, timestep

    def residual(self, block):
        """What is added to the image tokens behind the base's double block number `block`, (B, N, hidden).

        The branches have fewer residuals than the base has blocks, and give them in turn.
        """
        modulations = self._network.modulation_lq, self._network.modulation_ldr
        return sum(
            modulation(residuals[block % len(residuals)], self._timestep, block)
            for modulation, residuals in zip(modulations, self._branches)
        )


class LucidFlux(nn.Module):
    """Both branches (of the degraded image, and of what a degradation remover makes of it), their modulations, the connector.

    `ops` provides Linear, LayerNorm, RMSNorm and Conv2d (torch.nn, or ComfyUI's manual_cast); `attention(q, k, v)` takes
    (B, heads, N, head_dim) and returns (B, N, hidden).
    """

    def __init__(self, config, ops: Any = nn, attention=attention, device=None, dtype=None):
        super().__init__()
        self.config = config
        factory = {"device": device, "dtype": dtype}
        self.condition_lq, self.condition_ldr = (ConditionBranch(config.dims, ops, attention, **factory) for _ in range(2))
        self.modulation_lq, self.modulation_ldr = (Modulation(config.dims.hidden_size, ops, **factory) for _ in range(2))
        self.connector = Connector(config, ops, **factory)

    def prepare(self, degraded, cleaned, text, pooled, image_ids):
        """Computes the Conditions of one set of images, once.

        Args:
            degraded: (B, 3, 8 H, 8 W) in [0, 1].
            cleaned: what a degradation remover makes of it, (B, 3, 8 H, 8 W) in [0, 1].
            text: (B, L, context), without semantic tokens.
            pooled: (B, vec).
            image_ids: positions of the latent's tokens, (N, 3) or (B, N, 3).

        Returns:
            Conditions.
        """
        if image_ids.ndim == 2:
            image_ids = image_ids[None]
        text_ids = image_ids.new_zeros(len(image_ids), text.shape[1], image_ids.shape[-1])
        dims, branches = self.config.dims, (self.condition_lq, self.condition_ldr)
        return Conditions(
            hints=tuple(branch.hint(images) for branch, images in zip(branches, (degraded, cleaned))),
            texts=tuple(branch.txt_in(text) for branch in branches),
            pooled=tuple(branch.vector_in(pooled) for branch in branches),
            rotary=rotary_embedding(torch.cat([text_ids, image_ids], 1), dims.axes_dim, dims.theta),
        )

    def forward(self, tokens, timestep, guidance, conditions):
        """Runs both branches for one model call.

        Args:
            tokens: x_t, (B, N, 64).
            timestep: (B,) in [0, 1].
            guidance: (B,), or None for GUIDANCE.
            conditions: what `prepare` gave.

        Returns:
            The Control of this call.
        """
        guidance = torch.full_like(timestep, GUIDANCE) if guidance is None else guidance
        branches = [
            branch(tokens, timestep, guidance, hint, text, pooled, conditions.rotary)
            for branch, hint, text, pooled in zip((self.condition_lq, self.condition_ldr), *conditions[:3])
        ]
        return Control(self, branches, timestep)

    def semantic_tokens(self, features):
        """The image encoder's last hidden state (B, M, features) of the cleaned image as text tokens (B, M, context)."""
        return self.connector(features)
