"""FLUX's double-stream block: one MM-DiT block, with BFL's parameter names."""

import torch
from torch import nn

from .layers import apply_rotary


class Modulation(nn.Module):
    """adaLN: shift, scale and gate, for attention and MLP, each (B, 1, hidden), from the vector (B, hidden)."""

    def __init__(self, dim, ops=nn, **kwargs):
        super().__init__()
        self.lin = ops.Linear(dim, 6 * dim, **kwargs)

    def forward(self, vector):
        return self.lin(nn.functional.silu(vector))[:, None].chunk(6, -1)


class QKNorm(nn.Module):
    """RMS norms of queries and keys over the head's channels."""

    def __init__(self, dim, ops=nn, **kwargs):
        super().__init__()
        self.query_norm = ops.RMSNorm(dim, eps=1e-6, **kwargs)
        self.key_norm = ops.RMSNorm(dim, eps=1e-6, **kwargs)


class SelfAttention(nn.Module):
    """One stream's share of the joint attention: fused q, k, v in, projection out."""

    def __init__(self, dim, num_heads, ops=nn, **kwargs):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = ops.Linear(dim, 3 * dim, **kwargs)
        self.norm = QKNorm(dim // num_heads, ops, **kwargs)
        self.proj = ops.Linear(dim, dim, **kwargs)

    def heads(self, x):
        """Normalized queries and keys, and values, of x (B, N, hidden): (B, heads, N, head_dim) each."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.norm.query_norm(query).to(value), self.norm.key_norm(key).to(value), value


class DoubleStreamBlock(nn.Module):
    """MM-DiT block: image and text streams with their own weights and one joint attention, text first (FLUX.1)."""

    img_mod: Modulation
    txt_mod: Modulation

    def __init__(self, dim, num_heads, mlp_ratio, attention, ops=nn, **kwargs):
        super().__init__()
        self.attention = attention
        hidden = int(dim * mlp_ratio)
        for stream in ("img", "txt"):
            setattr(self, f"{stream}_mod", Modulation(dim, ops, **kwargs))
            setattr(self, f"{stream}_norm1", ops.LayerNorm(dim, elementwise_affine=False, eps=1e-6, **kwargs))
            setattr(self, f"{stream}_attn", SelfAttention(dim, num_heads, ops, **kwargs))
            setattr(self, f"{stream}_norm2", ops.LayerNorm(dim, elementwise_affine=False, eps=1e-6, **kwargs))
            mlp = (ops.Linear(dim, hidden, **kwargs), nn.GELU(approximate="tanh"), ops.Linear(hidden, dim, **kwargs))
            setattr(self, f"{stream}_mlp", nn.Sequential(*mlp))

    def forward(self, image, text, vector, rotary):
        """Takes both streams through the block.

        Args:
            image: (B, N, hidden).
            text: (B, L, hidden).
            vector: what modulates both, (B, hidden).
            rotary: the rotary embedding of [text; image].

        Returns:
            image (B, N, hidden) and text (B, L, hidden).
        """
        modulations = self.img_mod(vector), self.txt_mod(vector)
        streams = {"img": (image, modulations[0]), "txt": (text, modulations[1])}
        heads = []
        for stream in ("txt", "img"):
            x, (shift, scale, *_) = streams[stream]
            normalized = getattr(self, f"{stream}_norm1")(x)
            heads.append(getattr(self, f"{stream}_attn").heads(normalized * (1 + scale) + shift))
        query, key, value = (torch.cat(parts, 2) for parts in zip(*heads))
        mixed = self.attention(apply_rotary(query, rotary), apply_rotary(key, rotary), value)
        attended = {"txt": mixed[:, : text.shape[1]], "img": mixed[:, text.shape[1] :]}

        out = {}
        for stream, (x, (_, _, gate, mlp_shift, mlp_scale, mlp_gate)) in streams.items():
            x = x + gate * getattr(self, f"{stream}_attn").proj(attended[stream])
            normalized = getattr(self, f"{stream}_norm2")(x)
            out[stream] = x + mlp_gate * getattr(self, f"{stream}_mlp")(normalized * (1 + mlp_scale) + mlp_shift)
        return out["img"], out["txt"]
