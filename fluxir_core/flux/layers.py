"""FLUX's embedders, rotary positions and attention."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def timestep_embedding(t, dim=256, max_period=10000.0):
    """Cosines, then sines, of 1000 t (B,) at `dim` / 2 frequencies: (B, dim), float32.

    Stays in float32 whatever the model's type: 1000 t in bfloat16 is off by up to 4.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = 1000.0 * t.float()[:, None] * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], -1)


def rotary_embedding(ids, axes_dim, theta):
    """Cosine and sine of every position's angles, (B, 1, N, D/2) each, float32, for `ids` (B, N, axes)."""
    angles = []
    for axis, dim in enumerate(axes_dim):
        # In float64, like FLUX itself: large images' angles lose digits in float32. Some devices have no float64.
        kind = torch.float32 if ids.device.type in ("mps", "xpu") else torch.float64
        scale = torch.arange(0, dim, 2, dtype=kind, device=ids.device) / dim
        angles.append(ids[..., axis, None].to(kind) / theta**scale)
    angles = torch.cat(angles, -1)[:, None]
    return angles.cos().float(), angles.sin().float()


def apply_rotary(x, rotary):
    """Rotates the pairs of neighboring channels of `x` (B, H, N, D) by `rotary` (from rotary_embedding)."""
    cos, sin = rotary
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([cos * even - sin * odd, sin * even + cos * odd], -1)
    return rotated.flatten(-2).to(x.dtype)


def attention(query, key, value):
    """Softmax attention on (B, H, N, D); returns (B, N, H D)."""
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class MLPEmbedder(nn.Module):
    """Linear, SiLU, Linear: how FLUX embeds timestep, guidance and the pooled prompt."""

    def __init__(self, in_dim, hidden_dim, ops=nn, **kwargs):
        super().__init__()
        self.in_layer = ops.Linear(in_dim, hidden_dim, **kwargs)
        self.out_layer = ops.Linear(hidden_dim, hidden_dim, **kwargs)

    def forward(self, x):
        return self.out_layer(F.silu(self.in_layer(x)))


EMBEDDING_DIM = 256
"""Width of the sinusoidal timestep and guidance embeddings."""
