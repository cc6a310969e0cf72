"""Sharpness, spectrum and noise: natural-image statistics that need no weights."""

import torch
from torch.nn import functional as F

from ..image.pixels import blur, luma, normalize

NATURAL_SLOPE = -3.0
"""Slope of log power over log frequency: the median over the photos NIQE is fitted on."""


def _gradient(gray):
    """Central differences of `gray` (B, 1, H, W), edges replicated: (along x, along y)."""
    padded = F.pad(gray, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


class CoherentGradient:
    """Mean gradient where neighboring gradients agree (structure tensor coherence): edges count, noise hardly does."""

    name = "coherent_gradient"

    def __call__(self, images, reference=None):
        images, finite = normalize(images)
        x, y = _gradient(luma(images))
        xx, yy, xy = blur(torch.cat([x * x, y * y, x * y], 1), 1.5, 4).split(1, 1)
        energy = xx + yy
        coherence = ((xx - yy) ** 2 + 4 * xy * xy) / (energy * energy + 1e-8)
        scores = (coherence * energy.clamp(min=0).sqrt()).mean((1, 2, 3))
        return torch.where(finite, scores, -torch.inf)


def spectral_slope(gray):
    """Least-squares slope of log power over log frequency (0.05 to 0.45 cycles a pixel) of `gray` (B, 1, H, W)."""
    gray = gray[:, 0] - gray[:, 0].mean((1, 2), keepdim=True)
    height, width = gray.shape[1:]
    window = torch.hann_window(height, device=gray.device)[:, None] * torch.hann_window(width, device=gray.device)
    power = torch.fft.rfft2(gray * window, norm="ortho").abs() ** 2
    fy, fx = torch.fft.fftfreq(height, device=gray.device)[:, None], torch.fft.rfftfreq(width, device=gray.device)
    frequency = torch.hypot(fy, fx)
    edges = torch.logspace(-1.3, -0.347, 17, device=gray.device)
    bands, levels = [], []
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (frequency >= low) & (frequency < high)
        if inside.any():
            bands.append(frequency[inside].mean().log())
            levels.append(power[:, inside].mean(1).clamp(min=1e-12).log())
    bands, levels = torch.stack(bands), torch.stack(levels, 1)
    bands = bands - bands.mean()
    return (levels * bands).sum(1) / (bands * bands).sum()


class SpectralSlope:
    """Minus the distance of the spectrum's slope from that of undistorted photos."""

    name = "spectral_slope"

    def __call__(self, images, reference=None):
        images, finite = normalize(images)
        return torch.where(finite, -(spectral_slope(luma(images)) - NATURAL_SLOPE).abs(), -torch.inf)
