"""Consistency with the degraded input: a limit to keep, never a quantity to raise."""

import torch
from torch.nn import functional as F

from .pictures import normalise

FACTOR = 4
"""Compared at this share of the size, where degradations hardly reach and invented detail does not count."""
ENOUGH, SCALE = 33.0, 4.0
"""dB above which nothing is gained, and dB a unit of the hinge."""


def matched(reference, pictures):
    """The degraded input `reference` as a batch beside `pictures` (B, 3, H, W): ((B or 1, 3, h, w), finite)."""
    reference = reference.to(pictures.device)
    reference = reference[None] if reference.ndim == 3 else reference
    if len(reference) not in (1, len(pictures)):
        raise ValueError(f"verify: {len(reference)} references for {len(pictures)} pictures; give one, or one each.")
    return normalise(reference, minimum=1)


def downsampled_psnr(pictures, reference):
    """PSNR in dB, at most 80, of `pictures` to `reference`, both averaged to a quarter of the pictures' size: (B,)."""
    pictures, finite = normalise(pictures, minimum=1)
    reference, whole = matched(reference, pictures)
    size = [max(1, extent // FACTOR) for extent in pictures.shape[2:]]
    error = F.interpolate(pictures, size, mode="area") - F.interpolate(reference, size, mode="area")
    psnr = -10 * error.square().mean((1, 2, 3)).clamp(min=1e-8).log10()
    return torch.where(finite & whole, psnr, -torch.inf)


class Consistency:
    """Minus the hinge max(0, 33 dB - PSNR) / 4 at a quarter of the size; 0 for all pictures close to the input."""

    name = "consistency"

    def __call__(self, pictures, reference=None):
        if reference is None:
            raise ValueError("Consistency: no reference was given; connect the degraded input.")
        return -((ENOUGH - downsampled_psnr(pictures, reference)).clamp(min=0) / SCALE)
