"""Raindrops on the glass before the camera."""

import math

import torch
from torch.nn import functional as F

from .kernel import aperture, convolve, gaussian
from .picture import per_picture, side_of
from .srgb import encoded, linear

DROPS, RADIUS, SPREAD = 100, 0.015, 0.6
"""At strength 1: number of drops, their median radius as a share of the picture's side, the deviation of its logarithm."""


def drops_on_glass(draw, height, width, count):
    """Where `count` of DROPS random drops are and what they do: cover, refraction, rim.

    cover (H, W) is 1 under a drop; refraction (2, H, W) is how far, in pixels y and x, from its own place a pixel under a
    drop looks; rim (H, W) grows from 0 in a drop's middle to 1 at its edge. A drop is a cap with an uneven outline, a lens
    whose surface turns the ray by its slope: it shows the scene wide-angled and upside down.
    """
    side = math.sqrt(height * width)
    cover, rim, refraction = torch.zeros(height, width), torch.zeros(height, width), torch.zeros(2, height, width)
    places, sizes = draw.uniforms(DROPS, 2), draw.normals(DROPS).clamp(-2, 2)
    shapes, phases, lenses = draw.normals(DROPS, 3), draw.uniforms(DROPS, 3) * 2 * math.pi, draw.uniforms(DROPS)
    for place, size, shape, phase, lens in list(zip(places, sizes, shapes, phases, lenses))[:count]:
        radius = max(1.0, RADIUS * side * math.exp(SPREAD * size))
        y, x = place[0] * height, place[1] * width
        top, left = max(0, int(y - 2 * radius)), max(0, int(x - 2 * radius))
        window = (slice(top, int(y + 2 * radius) + 2), slice(left, int(x + 2 * radius) + 2))
        rows, columns = torch.arange(height)[window[0]], torch.arange(width)[window[1]]
        dy, dx = torch.meshgrid((rows + 0.5 - y) / 1.15, columns + 0.5 - x, indexing="ij")
        angle = torch.atan2(dy, dx)
        outline = 1 + sum(0.06 * shape[k] * torch.cos((k + 2) * angle + phase[k]) for k in range(3))
        away = torch.hypot(dy, dx) / radius / outline.clamp(0.6, 1.6)
        inside = away < 1
        slope = (0.12 + 0.15 * lens) * side / radius / (1.2 - away.clamp(max=1) ** 2).sqrt()
        cover[window][inside], rim[window][inside] = 1.0, away[inside]
        for axis, offset in enumerate((dy, dx)):
            refraction[axis][window][inside] = (-slope * offset)[inside]
    return cover, refraction, rim


@per_picture
def raindrops(image, strength, draw):
    """Up to 100 drops on the glass before the lens, out of focus, through which the scene is seen upside down.

    The picture is (1 - M) B + R, drops R where the mask M is (Qian et al. 2018, AttentiveGAN); what a drop shows follows
    from refraction at its surface (Halimeh and Roser 2009; von Bernuth et al. 2018).
    """
    height, width = image.shape[1:]
    side, count = side_of(image), max(1, round(strength * DROPS))
    cover, refraction, rim = (part.to(image) for part in drops_on_glass(draw, height, width, count))
    defocus = aperture(0.004 * side * draw.uniform(0.6, 1.5))

    light = linear(image)
    sigma = 0.02 * side  # a drop shows much of the scene on few pixels
    scene = convolve(light, gaussian(int(3 * sigma) + 1, sigma))
    rows = torch.arange(height, device=image.device).view(-1, 1) + 0.5 + refraction[0]
    columns = torch.arange(width, device=image.device) + 0.5 + refraction[1]
    seen = torch.stack([2 * columns / width - 1, 2 * rows / height - 1], -1)
    view = F.grid_sample(scene[None], seen[None], padding_mode="reflection", align_corners=False)[0]
    sky = (refraction[0] / (0.3 * side)).clamp(-1, 1)  # the lower part of a drop sees up
    view = view * (1 - 0.3 * sky) * (1 - 0.5 * rim**6)
    blurred = convolve(torch.cat([view * cover, cover[None]]), defocus)
    return encoded(light * (1 - blurred[3:]) + blurred[:3])
