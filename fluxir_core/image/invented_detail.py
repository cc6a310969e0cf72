"""Invented detail: structure of a restored image for which the degraded input gives no evidence."""

import torch
from torch.nn import functional as F

from .pixels import blur, luma

LEVELS = 3
"""Sizes of detail that are looked at: about 2, 4 and 8 pixels."""


CELL = 4
"""Statistics are taken of cells of so many pixels a side, and of their neighbors."""


FAINT = 0.012
"""Contrast, a standard deviation in each channel, that hardly shows: where all detail is fainter, little counts as invented."""


def invented_detail(restored, degraded):
    """How much of the detail of `restored` the image `degraded` does not explain: (B, 1, H, W) in [0, 1].

    `restored` (B, 3, H, W) and `degraded` (1 or B, 3, h, w) in [0, 1]; the latter is brought to the former's size.

    Both are taken apart into bands, as in a Laplacian pyramid (Burt and Adelson 1983). Around each place a band of
    `restored` is fitted by least squares with the band of `degraded` and the next coarser one, each channel by itself: what
    sharpening, deblurring, gain and offset can make of the input is explained, and the rest of the band's energy is not.
    The share is the unexplained energy of all bands over all their energy, and over FAINT's at least.
    Values outside [0, 1] are clipped first. Raises ValueError on other shapes and on NaN.
    """
    _check(restored, degraded)
    size = restored.shape[2:]
    degraded = degraded.to(restored)
    if degraded.shape[2:] != size:
        degraded = F.interpolate(degraded, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    planes, given = restored.float().clamp(0, 1), degraded.float().clamp(0, 1).expand(len(restored), -1, -1, -1)
    grid = _shrunk(planes, CELL).shape[2:]
    unexplained, energy = torch.zeros((), device=planes.device), torch.zeros((), device=planes.device)
    for _ in range(LEVELS):
        (band, planes), (own, given) = _split(planes), _split(given)
        coarser = given - blur(given, 2.0, 5)
        left, whole = _regression(band, own, coarser)
        unexplained, energy = (
            total + F.interpolate(part, grid, mode="bilinear", align_corners=False)
            for total, part in ((unexplained, left), (energy, whole))
        )
        planes, given = _shrunk(planes, 2), _shrunk(given, 2)
    share = unexplained / energy.clamp(min=3 * FAINT**2)
    return F.interpolate(share, size, mode="bilinear", align_corners=False).clamp(0, 1).to(restored.dtype)


def heat_map(share, images):
    """`share` (B, 1, H, W) in [0, 1] as heat, dark red over yellow to white, on `images` (B, 3, H, W) in dim gray."""
    heat = (3 * share - share.new_tensor([0.0, 1.0, 2.0])[:, None, None]).clamp(0, 1)
    return torch.lerp(0.5 * luma(images.clamp(0, 1)).expand_as(heat), heat, share)


def _split(planes):
    """The finest band of `planes`, and what is left without it."""
    smooth = blur(planes, 0.8, 3)
    return planes - smooth, smooth


def _regression(band, own, coarser):
    """Energy (B, 1, h, w) of `band` (B, 3, H, W) that no mix of `own` and `coarser` explains locally, and all its energy."""
    products = torch.cat([band * band, band * own, band * coarser, own * own, own * coarser, coarser * coarser], 1)
    means = blur(_shrunk(products, CELL), 1.0, 3)
    whole, with_own, with_coarser, owns, between, coarsers = means.chunk(6, 1)
    owns = owns + 1e-10
    # Gram and Schmidt: of the coarser band only what the band's own does not hold, and nothing where that is rounding.
    rest = coarsers - between.square() / owns
    both = (with_coarser - with_own * between / owns).square() / (rest + 1e-4 * coarsers + 1e-10)
    left = (whole - with_own.square() / owns - both).clamp(min=0)
    return left.sum(1, keepdim=True), whole.sum(1, keepdim=True)


def _shrunk(planes, factor):
    """Means of `factor` by `factor` pixels, at least one."""
    return F.interpolate(planes, [-(-extent // factor) for extent in planes.shape[2:]], mode="area")


def _check(restored, degraded):
    for name, given in (("restored", restored), ("degraded", degraded)):
        if given.ndim != 4 or given.shape[1] != 3 or 0 in given.shape:
            raise ValueError(f"the {name} images have the shape {tuple(given.shape)}; give (B, 3, H, W).")
        if not given.isfinite().all():
            raise ValueError(f"the {name} images hold NaN or infinity; give images without.")
    if len(degraded) not in (1, len(restored)):
        raise ValueError(f"{len(degraded)} degraded images for {len(restored)} restored ones; give one for each, or one for all.")
