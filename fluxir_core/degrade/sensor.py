"""A camera's sensor: its noise, an image taken in too little light, and one of fewer pixels."""

import math

import torch
from torch.nn import functional as F

from .basic import downscale, upscale
from .blur import convolve, gaussian
from .image import linear_to_srgb, per_image, smooth_field, srgb_to_linear

SHOT = 0.012
"""Variance per unit of light at strength 1; with 0.00012 at 0.1 the range of Brooks et al. 2019 (Unprocessing), 3.1."""


def read_noise(shot, draw):
    """The read noise's variance that goes with `shot`, with the scatter among cameras: Brooks et al. 2019, section 3.1."""
    return math.exp(2.18 * math.log(shot) + 1.2 + 0.26 * draw.normals().item())


def sensor_error(light, shot, read, draw):
    """What a sensor adds to the light: normal noise of variance `shot` * value + `read`.

    The law is that of Foi et al. 2008 (Practical Poissonian-Gaussian noise modeling and fitting), on raw values: white
    balance, with the gains of Brooks et al. 2019, has made red and blue of fewer photons, so they are noisier. A pixel of
    the RGGB mosaic has one color and its neighbors give the others by bilinear interpolation, which makes colored grain;
    being linear, it is applied to the noise alone, and the image keeps its detail.

    Args:
        light: (3, H, W) in [0, 1] of full scale, linear.
        shot: variance per unit of light.
        read: variance without light.
        draw: Draw.

    Returns:
        (3, H, W), to be added to `light`.
    """
    gains = torch.tensor([draw.uniform(1.9, 2.4), 1.0, draw.uniform(1.5, 1.9)]).view(3, 1, 1).to(light)
    height, width = light.shape[1:]
    noise = draw.normals(height, width).to(light) * gains * (shot * light / gains + read).sqrt()
    mosaic = torch.zeros_like(noise)
    for channel, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        mosaic[channel, row::2, column::2] = noise[channel, row::2, column::2]
    corner = torch.tensor([0.25, 0.0, 0.25]).view(3, 1).to(light)  # green has no neighbors at the corners
    edge, center = torch.full_like(corner, 0.5), torch.ones_like(corner)
    edge[1] = 0.25
    kernel = torch.cat([corner, edge, corner, edge, center, edge, corner, edge, corner], 1).view(3, 1, 3, 3)
    return F.conv2d(mosaic[None], kernel, padding=1, groups=3)[0]


@per_image
def sensor_noise(image, strength, draw):
    """A camera's noise at high sensitivity (`sensor_error`), in linear light; its deviation grows with the strength."""
    shot = SHOT * strength**2
    light = srgb_to_linear(image)
    return linear_to_srgb(light + sensor_error(light, shot, read_noise(shot, draw), draw))


STOPS, UNEVEN, DIM_SHOT = 4.5, 0.3, 0.0012
"""At strength 1: mean loss of light in stops, how much of it varies over the image, and the sensor's noise per light."""


@per_image
def low_light(image, strength, draw):
    """The scene under 1/22 of its light at strength 1, unevenly, as a sensor records it.

    Retinex (Land and McCann 1971): light is reflectance times a smooth illumination, which is dimmed here by 4.5 stops, give
    or take 15 %, and 30 % more or less from place to place. Noise belongs to it (Lore et al. 2017, LLNet): that of
    `sensor_error`, which does not fade with the light.
    """
    stops = strength * STOPS * draw.uniform(0.85, 1.15)
    lost = 1 + UNEVEN * (2 * smooth_field(draw, *image.shape[1:]) - 1)
    light = srgb_to_linear(image) * 2 ** (-stops * lost.to(image))
    shot = DIM_SHOT * strength**2
    return linear_to_srgb(light + sensor_error(light, shot, read_noise(shot, draw), draw))


FACTOR, SOFTEST = 4, 0.25
"""At strength 1: how many times smaller, and the greatest deviation of the blur in pixels, per pixel that was lost."""


@per_image
def low_resolution(image, strength, draw):
    """The image 4^strength times smaller and brought back by bicubic interpolation: what super-resolution starts from.

    An anisotropic Gaussian blur comes first and the small image is an area mean or a bicubic one, as in Zhang et al. 2021
    (BSRGAN).
    """
    factor = FACTOR**strength
    across, along = (draw.uniform(0.05, SOFTEST) * (factor - 1) + 1e-3 for _ in range(2))
    kernel = gaussian(math.ceil(3 * max(across, along)), across, along, draw.uniform(0, math.pi))
    small = downscale(convolve(image, kernel), factor, draw.choice(("area", "bicubic")))
    return upscale(small, image.shape[1:])
