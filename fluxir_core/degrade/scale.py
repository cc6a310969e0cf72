"""A picture of fewer pixels."""

import math

from .basic import downscale, upscale
from .kernel import convolve, gaussian
from .picture import per_picture

FACTOR, SOFTEST = 4, 0.25
"""At strength 1: how many times smaller, and the greatest deviation of the blur in pixels, per pixel that was lost."""


@per_picture
def low_resolution(image, strength, draw):
    """The picture 4^strength times smaller and brought back by bicubic interpolation: what super-resolution starts from.

    An anisotropic Gaussian blur comes first and the small picture is an area mean or a bicubic one, as in Zhang et al. 2021
    (BSRGAN).
    """
    factor = FACTOR**strength
    across, along = (draw.uniform(0.05, SOFTEST) * (factor - 1) + 1e-3 for _ in range(2))
    kernel = gaussian(math.ceil(3 * max(across, along)), across, along, draw.uniform(0, math.pi))
    small = downscale(convolve(image, kernel), factor, draw.choice(("area", "bicubic")))
    return upscale(small, image.shape[1:])
