"""Real-ESRGAN's second-order degradation with the numbers of SeeSR's training pairs."""

import math
from typing import NamedTuple

from torch.nn import functional as F

from ..image.pixels import luma
from .basic import jpeg, upscale
from .blur import convolve, gaussian, sinc
from .image import per_image

FACTOR, MODES = 4, ("area", "bilinear", "bicubic")
KERNELS = {  # name: (probability, anisotropic, generalized, plateau)
    "iso": (0.45, False, False, False),
    "aniso": (0.25, True, False, False),
    "generalized iso": (0.12, False, True, False),
    "generalized aniso": (0.03, True, True, False),
    "plateau iso": (0.12, False, True, True),
    "plateau aniso": (0.03, True, True, True),
}
SINC, LAST_SINC, GAUSSIAN, GRAY = 0.1, 0.8, 0.5, 0.4
"""Probabilities: a ringing kernel for a blur, one at the end, normal noise and not Poisson's, one noise for all channels."""
GENERALIZED, PLATEAU, QUALITY = (0.5, 4), (1, 2), (30, 95)
"""Powers of the generalized Gaussian and of the plateau kernel, and JPEG's quality."""


class Order(NamedTuple):
    """One round of blur, resizing and noise: how likely the blur is, its deviation in pixels, and so on."""

    blur: float
    sigma: tuple
    sizes: tuple  # probabilities of a larger, a smaller and the same size
    smallest: float
    largest: float
    noise: tuple  # deviation on the 0-255 scale
    poisson: tuple  # how many times the noise of 256 photons


FIRST = Order(1.0, (0.2, 3), (0.2, 0.7, 0.1), 0.15, 1.5, (1, 30), (0.05, 3))
SECOND = Order(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), 0.3, 1.2, (1, 25), (0.05, 2.5))


@per_image
def real_esrgan(image, strength, draw):
    """Blur, resizing, noise and JPEG, twice, and ringing: the second order of Wang et al. 2021 (Real-ESRGAN), section 3.

    At strength 1 the random numbers are those of SeeSR's training pairs (Wu et al. 2024), four times smaller and brought
    back by bicubic interpolation. Less strength scales each of them toward none: deviations and noise in proportion, sizes
    in their logarithm, JPEG's quality toward 100, a ringing kernel's cut-off toward pi. Every image has kernels, sizes
    and noise of its own. Poisson noise is that of 256 levels, which most photos have; Real-ESRGAN counts them.
    """
    size = image.shape[1:]
    small = [extent / FACTOR**strength for extent in size]
    image = _noisy(_resized(_blurred(image, FIRST, strength, draw), size, FIRST, strength, draw), FIRST, strength, draw)
    image = _compressed(image, strength, draw)
    image = _noisy(_resized(_blurred(image, SECOND, strength, draw), small, SECOND, strength, draw), SECOND, strength, draw)

    ringing = _sinc(draw, strength, math.pi / 3) if draw.uniform() < LAST_SINC else None
    mode, compressed_last = draw.choice(MODES), draw.uniform() < 0.5
    if not compressed_last:
        image = _compressed(image, strength, draw)
    image = _scaled(image, small, mode)
    image = image if ringing is None else convolve(image, ringing).clamp(0, 1)
    if compressed_last:
        image = _compressed(image, strength, draw)
    return upscale((image * 255).round() / 255, size)


def _sinc(draw, strength, lowest, radius=None):
    radius = draw.choice(range(3, 11)) if radius is None else radius
    return sinc(radius, math.pi - strength * (math.pi - draw.uniform(lowest, math.pi)))


def _power(draw, low, high):
    return draw.uniform(low, 1) if draw.uniform() < 0.5 else draw.uniform(1, high)


def _blurred(image, order, strength, draw):
    if draw.uniform() >= order.blur:
        return image
    radius = draw.choice(range(3, 11))
    if draw.uniform() < SINC:
        return convolve(image, _sinc(draw, strength, math.pi / (3 if radius < 6 else 5), radius)).clamp(0, 1)
    name = draw.choice(list(KERNELS), [row[0] for row in KERNELS.values()])
    _, anisotropic, generalized, plateau = KERNELS[name]
    across, along = (strength * draw.uniform(*order.sigma) for _ in range(2))
    power = _power(draw, *(PLATEAU if plateau else GENERALIZED)) if generalized else 1.0
    angle = draw.uniform(-math.pi, math.pi)
    kernel = gaussian(radius, across, along if anisotropic else across, angle, power, plateau)
    return convolve(image, kernel).clamp(0, 1)


def _resized(image, size, order, strength, draw):
    """`image` resized to `size` times a random scale."""
    larger, smaller, same = (draw.uniform(1, order.largest), draw.uniform(order.smallest, 1), 1.0)
    scale = draw.choice((larger, smaller, same), order.sizes) ** strength
    return _scaled(image, [extent * scale for extent in size], draw.choice(MODES))


def _scaled(image, size, mode):
    """`image` at `size`, without anti-aliasing, as in Real-ESRGAN."""
    size = [max(1, round(extent)) for extent in size]
    corners = {} if mode == "area" else {"align_corners": False}
    return F.interpolate(image[None], size, mode=mode, **corners)[0].clamp(0, 1)


def _noisy(image, order, strength, draw):
    gray, normal = draw.uniform() < GRAY, draw.uniform() < GAUSSIAN
    sigma, scale = (strength * draw.uniform(*limits) for limits in (order.noise, order.poisson))
    normals = draw.branch().normals(1 if gray else 3, *image.shape[1:]).to(image)
    if normal:
        return (image + sigma / 255 * normals).clamp(0, 1)
    bright = luma(image[None])[0] if gray else image
    return (image + scale * (poisson(bright * 255, normals) / 255 - bright)).clamp(0, 1)


def poisson(rate, normals):
    """Counts of mean and variance `rate` >= 0 made from `normals` of the same shape, so that devices agree on them.

    Cornish and Fisher 1938: the Poisson distribution's quantile, to second order, at the normal one's. The variance is up to
    0.14 too large.
    """
    return (rate + normals * rate.sqrt() + (normals**2 - 1) / 6).round().clamp(min=0)


def _compressed(image, strength, draw):
    return jpeg(image, 100 - strength * (100 - draw.uniform(*QUALITY)))
