"""A picture taken under water."""

import torch

from .field import smooth_field
from .kernel import convolve, gaussian
from .picture import per_picture, side_of
from .srgb import encoded, linear

LEFT = {
    "oceanic I": (0.805, 0.961, 0.982),
    "oceanic IA": (0.804, 0.955, 0.975),
    "oceanic IB": (0.83, 0.95, 0.968),
    "oceanic II": (0.8, 0.925, 0.94),
    "oceanic III": (0.75, 0.885, 0.89),
    "coastal 1": (0.75, 0.885, 0.875),
    "coastal 3": (0.71, 0.82, 0.8),
}
"""Share of red, green and blue light left after a metre of Jerlov's water types: Li, Anwar and Porikli 2020 (UWCNN)."""
FARTHEST, DEEPEST, BLUR = 10.0, 5.0, 0.004
"""At strength 1: metres to the farthest point, most metres to the surface, and forward scattering's blur, by the side."""


@per_picture
def underwater(image, strength, draw):
    """The scene through up to 10 metres of water, under up to 5 metres of it; red goes first.

    Jaffe 1990 and McGlamery 1980: light is the direct part, which fades with the distance d as exp(-b d), the same scattered
    forward, which is blurred, and the veil B (1 - exp(-b' d)). As Akkaynak and Treibitz 2018 found, b' of the veil is not b.
    Both follow a Jerlov water type, drawn by the seed; the distance is a smooth random field, larger towards the top.
    """
    height, width = image.shape[1:]
    fading = -torch.tensor(LEFT[draw.choice(list(LEFT))]).log().view(3, 1, 1)
    depth, brightness, ratio = DEEPEST * draw.uniform(0.4, 1), draw.uniform(0.25, 0.5), draw.uniform(0.9, 1.4)
    veil = torch.exp(-fading * (depth + FARTHEST))
    veil = brightness * veil / veil.max()
    up = torch.linspace(1, 0, height).view(-1, 1)
    distance = strength * FARTHEST * (0.3 + 0.35 * up + 0.35 * smooth_field(draw, height, width))
    fading, veil, distance = (part.to(image) for part in (fading, veil, distance))

    light = linear(image) * torch.exp(-fading * strength * depth)
    sigma = BLUR * strength * side_of(image)
    scattered = convolve(light, gaussian(int(3 * sigma) + 1, sigma))
    forward = 1 - torch.exp(-0.3 * distance)
    light = (light + forward * (scattered - light)) * torch.exp(-fading * distance)
    return encoded(light + veil * (1 - torch.exp(-ratio * fading * distance)))
