"""Latents as FLUX's tokens: 2 x 2 patches in channel order (c, ph, pw)."""

import torch
from einops import rearrange


def pack_latents(latents):
    """(B, C, H, W) latents -> (B, H/2 * W/2, 4 C) tokens; H and W even."""
    return rearrange(latents, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)


def unpack_latents(tokens, height, width):
    """(B, height/2 * width/2, 4 C) tokens -> (B, C, height, width) latents."""
    return rearrange(tokens, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=height // 2, ph=2, pw=2)


def image_ids(height, width):
    """Positions (0, row, column) of the tokens of a `height` x `width` latent, (height/2 * width/2, 3) float32."""
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
