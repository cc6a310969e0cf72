"""Whether what a degradation remover made of an image may be described in its place: a caption of a ruin misleads.

A remover may take noise, blur, haze and darkness away, or do nothing; it may not change what the image shows.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..image.pixels import luma, normalize
from .vetoes import BLOCKINESS, SLACK, blockiness, noise_level

MOST_PIXELS = 1024 * 1024


COARSE, FINE = 16, 64
"""Cells along each axis in which large shapes and finer structure are compared; small images have fewer."""


FAINT, COLORLESS = 1e-5, 0.02
"""Variance of luma too small to be structure; deviation of color from gray under which an image has no colors."""


NOISE = 16 / 255


LOWEST = {
    "agreement": (0.6, "its large shapes agree with the degraded image's by {:.2f}, less than {:.2f}"),
    "contrast": (0.3, "its contrast is {:.2f} of the degraded image's, less than {:.2f}"),
    "structure": (0.25, "it keeps {:.2f} of the degraded image's structure, less than {:.2f}"),
    "color": (0.9, "its colors agree with the degraded image's by {:.2f}, less than {:.2f}"),
}


HIGHEST = {
    "clipped": (0.2, "{:.2f} more of its values are black or white, more than {:.2f}"),
    "noise": (1.0, "its noise is {:.2f} times what is allowed, more than {:.2f}"),
    "blocks": (1.0, "its lines on an 8-pixel grid are {:.2f} times what is allowed, more than {:.2f}"),
}
"""What is measured, the lowest or the highest value that a usable image has, and what a refusal says."""


@dataclass(frozen=True)
class Finding:
    """What `removal_check` found of one image: `measured`, a value by name, and the `reasons` to refuse it, if any."""

    measured: dict
    reasons: tuple

    @property
    def usable(self):
        return not self.reasons


def removal_check(cleaned, degraded):
    """A Finding for each of `cleaned`, a remover's results for `degraded`: both (B, 3, H, W) in [0, 1], of any two sizes.

    They are compared at the smaller size, at most a megapixel. `agreement` and `color` are correlations, -1 to 1, of luma
    and of color in coarse cells, so that exposure is free; `contrast` is what luma there is multiplied by; `structure` is
    the same in fine cells, over `contrast`, the degraded image's noise discounted; `clipped` is a difference of shares;
    `noise` and `blocks` are levels over their limits, those of the vetoes, wider for noise. Unchanged images pass.

    The limits were chosen on scikit-image's training photos, where `python -m comfyui_fluxir.training.studies.calibrate_removal`
    counts: of 5148 good results 99.3 % are usable, of the undistorted photos and of unchanged images all; of 9768 ruined
    ones 95.0 % are refused, fewest of those only blurred a thirtieth of the side (47 %), oversharpened (81 %) and posterized
    to three levels (88 %). NIQE was left out: it added little and refused smoothed textures.
    Raises ValueError when the numbers of images differ.
    """
    if len(cleaned) != len(degraded):
        raise ValueError(f"verify: {len(cleaned)} cleaned images for {len(degraded)} degraded ones; give one for each.")
    (cleaned, finite), (degraded, whole) = normalize(cleaned, 1), normalize(degraded, 1)
    measured = _measure(*(normalize(images)[0] for images in _at_one_size(cleaned, degraded)))
    return [
        _judge({name: values[index].item() for name, values in measured.items()}, finite[index], whole[index])
        for index in range(len(cleaned))
    ]


def _judge(measured, finite, whole):
    for sound, which in ((whole, "the degraded image"), (finite, "it")):
        if not sound:
            return Finding({}, (f"{which} holds NaN or infinity",))
    reasons = [text.format(measured[name], limit) for name, (limit, text) in LOWEST.items() if measured[name] < limit]
    reasons += [text.format(measured[name], limit) for name, (limit, text) in HIGHEST.items() if measured[name] > limit]
    return Finding(measured, tuple(reasons))


def _at_one_size(*images):
    """`images`, each (B, 3, H, W), at the smallest of their sizes, of at most MOST_PIXELS."""
    height, width = (min(p.shape[axis] for p in images) for axis in (2, 3))
    scale = min(1, (MOST_PIXELS / (height * width)) ** 0.5)
    size = [max(1, round(extent * scale)) for extent in (height, width)]
    return [
        p if list(p.shape[2:]) == size else F.interpolate(p, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        for p in images
    ]


def _measure(cleaned, degraded):
    """What is measured, (B,) each, of images of one size, at least 64 pixels a side."""
    side, pixels = min(cleaned.shape[2:]), cleaned.shape[2] * cleaned.shape[3]
    gray, given = luma(cleaned), luma(degraded)
    coarse = min(COARSE, side // 8)
    both, own, other = _products(_cells(gray, coarse), _cells(given, coarse))
    agreement = (both + FAINT) / ((own + FAINT) * (other + FAINT)).sqrt()
    contrast = (both + FAINT) / (other + FAINT)

    noise, fine = noise_level(given), min(FINE, side // 3)
    both, _, other = _products(_structure(gray, fine), _structure(given, fine))
    other = (other - noise.square() * fine**2 / pixels).clamp(min=0)
    structure = (both / contrast.clamp(min=0.01) + FAINT) / (other + FAINT)

    both, own, other = _products(*(_tints(F.adaptive_avg_pool2d(p, coarse // 2)) for p in (cleaned, degraded)))
    color = torch.where(other.sqrt() < COLORLESS, 1, both / (own * other).sqrt().clamp(min=1e-9))
    return {
        "agreement": agreement,
        "contrast": contrast,
        "structure": structure,
        "color": color,
        "clipped": _clipped(cleaned) - _clipped(degraded),
        "noise": noise_level(gray) / (SLACK * noise * contrast.clamp(min=1)).clamp(min=NOISE),
        "blocks": blockiness(gray) / (SLACK * blockiness(given)).clamp(min=BLOCKINESS),
    }


def _cells(gray, count):
    """Means of `gray` (B, 1, H, W) in `count` by `count` cells, less the image's mean."""
    cells = F.adaptive_avg_pool2d(gray, count)
    return cells - cells.mean((2, 3), keepdim=True)


def _structure(gray, count):
    """Means of `gray` (B, 1, H, W) in `count` by `count` cells, less what a quarter as many cells along each axis show."""
    cells = F.adaptive_avg_pool2d(gray, count)
    shapes = F.adaptive_avg_pool2d(cells, count // 4)
    return cells - F.interpolate(shapes, (count, count), mode="bilinear", align_corners=False)


def _tints(cells):
    return cells - cells.mean(1, keepdim=True)


def _products(first, second):
    """Means of first x second, first squared and second squared over all but the batch: three of (B,)."""
    return [(a * b).mean((1, 2, 3)) for a, b in ((first, second), (first, first), (second, second))]


def _clipped(images):
    """Share of the values of `images` (B, 3, H, W) that are black or white: (B,)."""
    return ((images < 1.5 / 255) | (images > 253.5 / 255)).float().mean((1, 2, 3))
