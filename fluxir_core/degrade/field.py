"""Smooth random fields: what depth, light and haze look like when only a photo is known."""

import torch
from torch.nn import functional as F


def smooth_field(draw, height, width, cells=2, octaves=3):
    """A smooth random field (H, W) from 0 to 1, the same at every resolution.

    It sums `octaves` of bicubically interpolated normal numbers, the first on a grid of about `cells` a side, each next one
    on a grid twice as fine with half the amplitude.
    """
    field = torch.zeros(1, 1, height, width)
    for octave in range(octaves):
        grid = draw.normals(1, 1, cells * 2**octave + 2, cells * 2**octave + 2)
        field += F.interpolate(grid, (height, width), mode="bicubic", align_corners=True) / 2**octave
    low, high = field.min(), field.max()
    return ((field - low) / (high - low).clamp(min=1e-6))[0, 0]
