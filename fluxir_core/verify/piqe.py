"""PIQE (Venkatanath et al., 2015): how many blocks of an image look distorted, needing neither weights nor a reference."""

import torch
from torch.nn import functional as F

from ..image.pixels import blur, luma, normalize

BLOCK, SEGMENT = 16, 6
ACTIVE, FLAT = 0.1, 0.1
"""Variance above which a block has something to judge; standard deviation under which a segment of its edge is blocky."""


class PIQE:
    """Minus the PIQE score, 0 (no distortion found) to -100.

    Only blocks of 16 pixels with structure count: one with a flat stretch on its edge is blocky or blurred, one whose
    center differs as little from its surround as white noise does is noisy.
    """

    name = "piqe"

    def __call__(self, images, reference=None):
        images, finite = normalize(images)
        gray = (255 * luma(images)).round()
        gray = F.pad(gray, (0, -gray.shape[3] % BLOCK, 0, -gray.shape[2] % BLOCK), mode="replicate")
        mean = blur(gray, 7 / 6, 3)
        deviation = (blur(gray * gray, 7 / 6, 3) - mean * mean).clamp(min=0).sqrt()
        structure = (gray - mean) / (deviation + 1)
        blocks = F.unfold(structure, BLOCK, stride=BLOCK).transpose(1, 2).unflatten(-1, (BLOCK, BLOCK))
        variance = blocks.flatten(-2).var(-1)
        active = variance > ACTIVE
        distortion = torch.where(_blocky(blocks), 1 - variance, 0) + torch.where(_noisy(blocks, variance), variance, 0)
        total = torch.where(active, distortion, 0).sum(1).clamp(min=0)
        return torch.where(finite, -100 * ((total + 1) / (active.sum(1) + 1)).clamp(max=1), -torch.inf)


def _blocky(blocks):
    """Whether one of the four edges of `blocks` (B, N, 16, 16) has a segment without change: (B, N)."""
    edges = torch.stack([blocks[..., 0, :], blocks[..., -1, :], blocks[..., 0], blocks[..., -1]], 2)
    return (edges.unfold(-1, SEGMENT, 1).std(-1) < FLAT).flatten(2).any(-1)


def _noisy(blocks, variance):
    """Whether `blocks` (B, N, 16, 16) vary as white noise does, at their two central columns as around them: (B, N)."""
    middle = BLOCK // 2
    center = blocks[..., middle - 1 : middle + 1].flatten(-2).std(-1)
    surround = torch.cat([blocks[..., : middle - 1], blocks[..., middle + 1 :]], -1).flatten(-2).std(-1)
    spread, ratio = variance.sqrt(), center / surround.clamp(min=1e-6)
    apart = (spread - ratio).abs() / torch.maximum(spread, ratio).clamp(min=1e-6)
    return spread > 2 * apart
