"""Color matching: a restored image gets the colors of its degraded input back, and keeps its own details."""

import math

import torch

from .cielab import from_lab, into_gamut, to_lab

LEVELS = 5
"""Wavelet levels, as in StableSR: level i reaches 2^i pixels, all of them 31."""


CELLS = 16
"""Statistics are taken of so many cells along each axis: noise, blur and missing detail hardly change their means."""


FAINT, STEEPEST = 1e-4, 4.0
"""Variance that hardly counts as contrast: a noisy reference has as much; the most that contrast is multiplied by."""


TRACE = 1e-6
"""Weight under which a neighborhood counts as invisible."""


def match_color(images, reference, method="wavelet", strength=1.0):
    """Gives images the colors of a reference.

    A fourth channel is alpha: it is carried through, and what is transparent in either image has no say. Each image is matched
    by itself, in float32 or better, and all methods leave an image that is its own reference as it is. Colors that leave sRGB
    are mixed with the gray of their own luma: hue is kept, not clipped.

    wavelet: the low frequencies of the reference, the details of the image (the wavelet color fix of StableSR, Wang et
        al. 2024). Follows casts that differ from place to place. Each channel's details take on the reference's contrast
        first, as far as the two agree; without that a cast that is a gain leaves halos along edges.
    adain: mean and standard deviation of each channel (Huang and Belongie 2017, equation 8).
    lab: mean and standard deviation of each axis of CIELAB, white D65 (Reinhard et al. 2001, equations 10 and 11, there in
        another space).

    Args:
        images: (B, 3 or 4, H, W) in [0, 1].
        reference: (1 or B, 3 or 4, h, w) in [0, 1], of any size.
        method: "wavelet", "adain" or "lab".
        strength: from 0, which gives `images` themselves, to 1; the result is linear in it.

    Returns:
        The shape and type of `images`; in [0, 1] at strength 1.

    Raises:
        ValueError: another method, a strength outside [0, 1], and where `check_pair` does.
    """
    check_pair(images, reference)
    if method not in METHODS:
        raise ValueError(f"there is no method '{method}'; choose one of {', '.join(METHODS)}.")
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength is {strength}; give 0 to 1.")
    if strength == 0:
        return images
    exact = torch.promote_types(images.dtype, torch.float32)
    (planes, seen), (colors, shown) = (_parts(p.to(images.device, exact)) for p in (images, reference))
    size, own = planes.shape[2:], colors.shape[2:]
    colors, shown = _resized(colors * shown, size), _resized(shown, size)
    matched = into_gamut(METHODS[method](planes, colors / shown.clamp(min=TRACE), seen * shown, own))
    matched = torch.lerp(planes, matched, strength).to(images.dtype)
    return torch.cat([matched, images[:, 3:]], 1)


def check_pair(images, reference):
    """Raises ValueError, one sentence, unless `images` and `reference` are what `match_color` takes, without NaN."""
    for name, given in (("image", images), ("reference", reference)):
        if given.ndim != 4 or 0 in given.shape:
            raise ValueError(f"the {name} has the shape {tuple(given.shape)}; give images of at least one pixel.")
        if given.shape[1] not in (3, 4):
            raise ValueError(f"the {name} has {given.shape[1]} channels; give 3, or 4 with alpha.")
        finite = given.isfinite().flatten(1).all(1)
        if not finite.all():
            number = finite.tolist().index(False) + 1
            raise ValueError(f"image {number} of the {name} holds NaN or infinity; give one without.")
    if len(reference) not in (1, len(images)):
        raise ValueError(f"{len(reference)} references for a batch of {len(images)}; give one for each image, or one for all.")


def _parts(images):
    """Colors (B, 3, H, W) and visibility (B, 1, H, W) of `images`."""
    colors, alpha = images[:, :3], images[:, 3:]
    return colors, alpha.clamp(0, 1) if alpha.shape[1] else torch.ones_like(colors[:, :1])


def _wavelet(planes, colors, weight, own):
    mine, theirs, visible = _cells(planes, colors, weight, own)
    mine, theirs = (cells - _local_mean(cells, visible, levels=2) for cells in (mine, theirs))
    contrast, other, both = (_mean(product, visible) for product in (mine * mine, theirs * theirs, mine * theirs))
    faint = FAINT / 10  # neighbors differ less than the whole image does
    agreement = both.square() / ((contrast + faint) * (other + faint))
    planes = planes * (1 + agreement * (_gain(contrast, other, faint) - 1))

    size = planes.shape[2:]
    enlarged = max(1, *(extent / before for extent, before in zip(size, own)))
    levels = min(LEVELS + round(math.log2(enlarged)), max(1, round(math.log2(max(size) / 4))))
    return planes + _local_mean(colors - planes, weight, levels)


def _adain(planes, colors, weight, own):
    return planes + _shift(planes, *_cells(planes, colors, weight, own))


def _lab(planes, colors, weight, own):
    mine, theirs, visible = _cells(planes, colors, weight, own)
    lab = to_lab(planes)
    # The difference of two conversions: the rounding of the way to CIELAB and back cancels where nothing changes.
    return planes + from_lab(lab + _shift(lab, to_lab(mine), to_lab(theirs), visible)) - from_lab(lab)


METHODS = {"wavelet": _wavelet, "adain": _adain, "lab": _lab}


def _shift(values, mine, theirs, weight):
    """What is to be added to `values` for the mean and the deviation of cells `mine` to become those of `theirs`."""
    mean, target = _mean(mine, weight), _mean(theirs, weight)
    gain = _gain(_mean((mine - mean).square(), weight), _mean((theirs - target).square(), weight))
    return (gain - 1) * (values - mean) + (target - mean)


def _gain(variance, target, faint=FAINT):
    return ((target + faint) / (variance + faint)).sqrt().clamp(max=STEEPEST)


def _cells(planes, colors, weight, own):
    """Mean colors of both images in one grid of cells, and the weight (B, 1, h, w) of what is visible in both."""
    grid = [min(CELLS, *extents) for extents in zip(planes.shape[2:], own)]
    visible = _resized(weight, grid)
    mine, theirs = (_resized(weight * p, grid) / visible.clamp(min=TRACE) for p in (planes, colors))
    return mine, theirs, visible


def _mean(values, weight):
    """The mean of `values` (B, C, H, W) under `weight` (B, 1, H, W): (B, C, 1, 1)."""
    return (values * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=TRACE)


def _local_mean(values, weight, levels):
    """Means of `values` (B, C, H, W) under `weight` (B, 1, H, W) around each pixel: an a-trous low-pass (Holschneider et
    al. 1989), whose level i is the kernel (1 2 1) / 4 along each axis with steps of 2^i.

    The image is continued by its mirror images, which prints less of a noisy border than repeating it does. Where
    nothing near is visible it is the whole image's mean.
    """
    low = torch.cat([weight * values, weight], 1)
    for _ in ("columns", "rows"):  # each as rows: a CPU gathers those four times as fast
        low = low.transpose(2, 3).contiguous()
        for step in (2**level for level in range(levels)):
            before, behind = (_mirrored(low.shape[2], shift).to(low.device) for shift in (-step, step))
            low = low / 2 + (low.index_select(2, before) + low.index_select(2, behind)) / 4
    return (low[:, :-1] + TRACE * _mean(values, weight)) / (low[:, -1:] + TRACE)


def _mirrored(extent, shift):
    """The pixel that lies `shift` from each of `extent` pixels, in an image continued by its mirror images."""
    place = (torch.arange(extent) + shift) % (2 * extent)
    return torch.minimum(place, 2 * extent - 1 - place)


def _resized(planes, size):
    """`planes` (B, C, H, W) at `size`, bilinear, averaging where it shrinks; as matrices, which every device has."""
    for axis, extent in zip((2, 3), size):
        own = planes.shape[axis]
        if own != extent:
            ticks = torch.arange(max(own, extent), dtype=planes.dtype, device=planes.device)
            centers = (ticks[:extent, None] + 0.5) * (own / extent) - 0.5
            weights = (1 - (centers - ticks[:own]).abs() / max(1, own / extent)).clamp(min=0)
            weights = weights / weights.sum(1, keepdim=True)
            planes = weights @ planes if axis == 2 else planes @ weights.T
    return planes
