"""How far a restored image has slid against its input, by phase correlation, and moving it back."""

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .pixels import blur, luma

COARSE = 0.15
"""Standard deviation, in cycles a pixel, of the frequencies that count: the input has lost finer ones."""
BLOCKS = 3
"""Places a side at which the shift is measured: a scale shifts each differently."""
SMALLEST = 32
"""Pixels a side that are needed."""
ROUNDS = 3
TRUSTED = 0.1
"""Height of a correlation's peak, of 1 for equal images, below which a place says nothing."""


class Drift(NamedTuple):
    """A point of the input at p, in pixels of the restored image from its middle, lies at `scale` p + (`down`, `right`)."""

    down: float = 0.0
    right: float = 0.0
    scale: float = 1.0

    def pixels(self, height, width):
        """Root mean square of how far the points of an image of `height` x `width` have moved, in pixels."""
        spread = (height**2 + width**2) / 12  # mean square distance from the middle
        return math.sqrt(self.down**2 + self.right**2 + (self.scale - 1) ** 2 * spread)

    def then(self, other):
        """This drift, followed by `other` of what was moved back by it."""
        down, right = (self.scale * value for value in other[:2])
        return Drift(self.down + down, self.right + right, self.scale * other.scale)


def measure_drift(restored, reference, scale=True):
    """The Drift of `restored` (3, H, W) against its degraded input `reference` (3, h, w), both in [0, 1].

    Shifts of up to a quarter of the shorter side and scales of a few percent are found, with an accuracy of about a tenth of a
    pixel where the input shows edges. `scale` False: a shift alone. Where nothing speaks for a drift, none is returned: an
    image is never said to have moved unless moving it back brings it nearer to the input.
    Raises ValueError for images under 32 pixels a side.
    """
    if min(restored.shape[-2:]) < SMALLEST:
        raise ValueError(f"an image has {restored.shape[-1]} x {restored.shape[-2]} pixels; give at least {SMALLEST} a side.")
    given = reference[None].float()
    if given.shape[-2:] != restored.shape[-2:]:
        given = F.interpolate(given, restored.shape[-2:], mode="bicubic", antialias=True, align_corners=False)
    given, image = luma(given), luma(restored[None].float())
    found = Drift(*_shift(image, given)[:2])
    for _ in range(ROUNDS if scale else 1):
        found = found.then(_residual(move_back(image, found), given, scale))
    return found if _agreement(move_back(image, found), given) > _agreement(image, given) + 1e-6 else Drift()


def move_back(images, drift):
    """`images` (B, C, H, W) as if they had not drifted: every point where the input has it, edges continued.

    No drift returns them as they are.
    """
    if drift == Drift():
        return images
    height, width = images.shape[-2:]
    rows, columns = (
        (torch.arange(extent, dtype=torch.float32, device=images.device) - (extent - 1) / 2) * drift.scale + shift
        for extent, shift in ((height, drift.down), (width, drift.right))
    )
    grid = torch.stack(torch.meshgrid(2 * columns / width, 2 * rows / height, indexing="xy"), -1)
    moved = F.grid_sample(
        images.float(), grid.expand(len(images), -1, -1, -1), mode="bicubic", padding_mode="border", align_corners=False
    )
    return moved.clamp(0, 1).to(images)


def _residual(image, given, scale):
    """What drift is left of `image` (1, 1, H, W): shifts at BLOCKS x BLOCKS places, by weighted least squares one shift and one
    scale."""
    height, width = image.shape[-2:]
    size = [max(SMALLEST // 2, extent // 2) for extent in (height, width)]
    rows = []
    for i in range(BLOCKS):
        for j in range(BLOCKS):
            corner = [round(k * (extent - side) / (BLOCKS - 1)) for k, extent, side in zip((i, j), (height, width), size)]
            part = (..., slice(corner[0], corner[0] + size[0]), slice(corner[1], corner[1] + size[1]))
            place = [start + side / 2 - extent / 2 for start, side, extent in zip(corner, size, (height, width))]
            down, right, trust = _shift(image[part], given[part])
            if trust > TRUSTED:
                rows += [(1.0, 0.0, place[0], down, trust), (0.0, 1.0, place[1], right, trust)]
    if not rows:
        return Drift()
    table = torch.tensor(rows, dtype=torch.float64)
    unknowns, weights = (3 if scale else 2), table[:, 4:].sqrt()
    # A weak pull to no scale: places in one corner alone do not tell a scale from a shift.
    pull = torch.zeros(1, unknowns, dtype=torch.float64)
    pull[0, -1] = max(height, width) / 100 if scale else 0.0
    left = torch.cat([table[:, :unknowns] * weights, pull])
    right = torch.cat([table[:, 3:4] * weights, torch.zeros(1, 1, dtype=torch.float64)])
    found = torch.linalg.lstsq(left, right).solution[:, 0].tolist()
    return Drift(found[0], found[1], 1 + found[2] if scale else 1.0)


def _shift(image, given):
    """(down, right, height of the peak) of `image` (1, 1, H, W) against `given`: phase correlation, refined between the pixels."""
    height, width = image.shape[-2:]
    window = torch.hann_window(height, False, device=image.device)[:, None] * torch.hann_window(width, False, device=image.device)
    spectra = [torch.fft.fft2((plane[0, 0] - plane.mean()) * window) for plane in (image, given)]
    cross = spectra[0] * spectra[1].conj()
    fy, fx = torch.fft.fftfreq(height, device=image.device), torch.fft.fftfreq(width, device=image.device)
    weight = torch.exp(-(fy[:, None].square() + fx.square()) / (2 * COARSE**2))
    phases = weight * cross / (cross.abs() + 1e-6 * cross.abs().max() + 1e-12)
    surface = torch.fft.ifft2(phases).real
    # Half the window at most: beyond it the two parts show different places.
    limits = [extent // 4 for extent in (height, width)]
    near = [
        torch.fft.fftfreq(extent, 1 / extent, device=image.device).abs() <= limit for extent, limit in zip((height, width), limits)
    ]
    surface = surface.masked_fill(~(near[0][:, None] & near[1]), -torch.inf)
    peak = divmod(int(surface.argmax()), width)
    place = [float(at - extent if at > extent // 2 else at) for at, extent in zip(peak, (height, width))]
    steps = torch.arange(-5, 6, dtype=torch.float32, device=image.device)
    for step in (0.2, 0.04, 0.008):
        rows, columns = (at + step * steps for at in place)
        fine = _waves(rows, fy) @ phases @ _waves(columns, fx).T
        best = divmod(int(fine.real.argmax()), len(steps))
        place = [float(rows[best[0]]), float(columns[best[1]])]
    return place[0], place[1], float(fine.real.max() / weight.sum())


def _waves(places, frequencies):
    return torch.exp(2j * math.pi * places[:, None] * frequencies[None])


def _agreement(image, given):
    """Correlation of the coarse structure of two planes (1, 1, H, W), away from the edges."""
    margin = [max(1, extent // 16) for extent in image.shape[-2:]]
    parts = []
    for plane in (image, given):
        structure = blur(plane, 1.5, 4) - blur(plane, 6.0, 18)
        inner = structure[..., margin[0] : -margin[0], margin[1] : -margin[1]].flatten()
        parts.append(inner - inner.mean())
    return float((parts[0] * parts[1]).sum() / (parts[0].norm() * parts[1].norm() + 1e-12))
