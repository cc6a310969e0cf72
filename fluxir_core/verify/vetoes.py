"""Vetoes: what makes a candidate unusable whatever it scores. They refuse, they never rank.

With a reference, a candidate may be as bad as the degraded input and a little worse: the input itself always passes.
"""

import torch

from ..image.noise import noise_blocks
from ..image.pixels import luma, normalize
from .fidelity import missing_light, reference_batch

NOISE, BLOCKINESS, TINT, SLACK = 10 / 255, 1.6, 0.06, 1.25


def noise_level(gray):
    """Standard deviation of white noise in the flattest tenth of `gray` (B, 1, H, W), the image's range: (B,)."""
    return noise_blocks(gray).quantile(0.1, dim=1)


def blockiness(gray):
    """Steps across the strongest line of an 8-pixel grid over the mean step, the larger of both directions: (B,)."""

    def along(plane):
        steps = (plane[..., 1:] - plane[..., :-1]).abs().mean((1, 2))
        steps = steps[:, : steps.shape[1] // 8 * 8].unflatten(1, (-1, 8)).mean(1)
        return steps.amax(1) / steps.mean(1).clamp(min=1e-4)

    return torch.maximum(along(gray), along(gray.transpose(2, 3)))


def chromaticity(images):
    """Share of each channel in the mean color of `images`, free of brightness: (B, 3)."""
    color = images.mean((2, 3)) + 0.02
    return color / color.sum(1, keepdim=True)


def vetoes(images, reference=None):
    """Which of `images` (B, 3, H, W) are refused, by veto: {"nan", "noise", "blockiness", "color": (B,) bool}.

    `color` needs the degraded input as `reference` and compares chromaticity alone: a dark input may be brightened,
    and its colors, washed out by the sensor's noise, have more tolerance.
    """
    images, finite = normalize(images)
    gray = luma(images)
    noise, blocks = noise_level(gray), blockiness(gray)
    refused = {"nan": ~finite}
    limits = NOISE, BLOCKINESS
    if reference is not None:
        given, whole = reference_batch(reference, images)
        given = normalize(given)[0]
        measured = noise_level(luma(given)), blockiness(luma(given))
        limits = [(SLACK * level).clamp(min=limit) for level, limit in zip(measured, limits)]
        shift = (chromaticity(images) - chromaticity(given)).abs().amax(1)
        white = torch.nn.functional.avg_pool2d(given, 4).flatten(1).quantile(0.99, dim=1)
        refused["color"] = (shift > TINT * missing_light(white).sqrt()) & whole & finite
    refused["noise"] = (noise > limits[0]) & finite
    refused["blockiness"] = (blocks > limits[1]) & finite
    return refused
