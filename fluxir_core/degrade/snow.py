"""Falling snow."""

import math

import torch

from .field import smooth_field
from .kernel import aperture, convolve, spread
from .picture import per_picture, side_of
from .srgb import encoded, linear

LAYERS = (
    (3000, 0.001, 0.8),
    (1500, 0.0017, 0.9),
    (600, 0.0028, 0.95),
    (220, 0.0046, 0.95),
    (60, 0.008, 0.8),
    (14, 0.015, 0.5),
)
"""From far to near, at strength 1: flakes, their radius as a share of the picture's side, and their opacity."""
VEIL, HAZE = 0.8, 0.2
"""The light of a thick veil of far snow, and the most of it that lies over the scene at strength 1."""


def flakes(share, most, radius, streak, height, width, draw):
    """What `share` of `most` flakes around `radius` pixels cover, (1, H, W) in [0, 1], smeared along `streak` (y, x)."""
    places, density = draw.uniforms(most, 2) * torch.tensor([height, width]), 0.5 + 0.5 * draw.uniforms(most)
    cover = torch.zeros(1, height, width)
    for kind, size in enumerate((0.7 * radius, radius, 1.4 * radius)):
        mine = slice(kind, math.ceil(share * most), 3)
        spots, (rows, columns) = torch.zeros(height, width), places[mine].long().unbind(1)
        spots.index_put_((rows, columns), density[mine], accumulate=True)
        disc = aperture(size)
        cover += convolve(spots[None], disc / disc.max() * min(1, math.pi * size**2))
    return convolve(cover.clamp(0, 1), spread(torch.linspace(-0.5, 0.5, 128)[:, None] * streak)).clamp(0, 1)


@per_picture
def snow(image, strength, draw):
    """Snow in six layers, from many small far flakes to a few large, thin near ones, and a veil of what is farther still.

    Flakes lie over the picture K as z a + (1 - z) K, of colour a where the mask z is (Liu et al. 2018, DesnowNet), and
    brighten it or leave it. K is the scene J under the veil A, T J + (1 - T) A (Chen et al. 2020, JSTASR), which is thicker
    where a smooth random field is high. Flakes fall during the exposure and draw streaks, longer the nearer they are.
    """
    height, width = image.shape[1:]
    side, light = side_of(image), linear(image)
    haze = HAZE * strength * (0.5 + 0.5 * smooth_field(draw, height, width)).to(image)
    light = light + haze * (linear(torch.tensor(VEIL)).to(image) - light)

    slant, speed, white = 0.4 * draw.normals().item(), draw.uniform(1, 6), draw.uniform(0.9, 1)
    for most, radius, opacity in LAYERS:
        angle = slant + 0.1 * draw.normals().item()
        streak = torch.tensor([math.cos(angle), math.sin(angle)]) * speed * radius * side
        z = opacity * flakes(strength, most, radius * side, streak, height, width, draw).to(image)
        light = light + z * (white - light).clamp(min=0)
    return encoded(light)
