"""Weather and water between the scene and the camera: raindrops on the glass, falling snow, and a scene under water."""

import math

import torch
from torch.nn import functional as F

from .blur import aperture, convolve, gaussian, spread
from .image import linear_to_srgb, per_image, side_of, smooth_field, srgb_to_linear

DROPS, RADIUS, SPREAD = 100, 0.015, 0.6
"""At strength 1: number of drops, their median radius as a share of the image's side, the deviation of its logarithm."""


def drops_on_glass(draw, height, width, count):
    """Where random drops on the glass are, and what they do.

    A drop is a cap with an uneven outline, a lens whose surface turns the ray by its slope: it shows the scene wide-angled and
    upside down.

    Args:
        draw: Draw.
        height, width: of the image, in pixels.
        count: how many of the DROPS that are drawn fall.

    Returns:
        cover (H, W), 1 under a drop and else 0; refraction (2, H, W), how far, in pixels y and x, from its own place a pixel
        under a drop looks; rim (H, W), from 0 in a drop's middle to 1 at its edge.
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
        waves = [0.06 * shape[k] * torch.cos((k + 2) * angle + phase[k]) for k in range(3)]
        outline = 1 + waves[0] + waves[1] + waves[2]
        away = torch.hypot(dy, dx) / radius / outline.clamp(0.6, 1.6)
        inside = away < 1
        slope = (0.12 + 0.15 * lens) * side / radius / (1.2 - away.clamp(max=1) ** 2).sqrt()
        cover[window][inside], rim[window][inside] = 1.0, away[inside]
        for axis, offset in enumerate((dy, dx)):
            refraction[axis][window][inside] = (-slope * offset)[inside]
    return cover, refraction, rim


@per_image
def raindrops(image, strength, draw):
    """Up to 100 drops on the glass before the lens, out of focus, through which the scene is seen upside down.

    The image is (1 - M) B + R, drops R where the mask M is (Qian et al. 2018, AttentiveGAN); what a drop shows follows
    from refraction at its surface (Halimeh and Roser 2009; von Bernuth et al. 2018).
    """
    height, width = image.shape[1:]
    side, count = side_of(image), max(1, round(strength * DROPS))
    cover, refraction, rim = (part.to(image) for part in drops_on_glass(draw, height, width, count))
    defocus = aperture(0.004 * side * draw.uniform(0.6, 1.5))

    light = srgb_to_linear(image)
    sigma = 0.02 * side  # a drop shows much of the scene on few pixels
    scene = convolve(light, gaussian(int(3 * sigma) + 1, sigma))
    rows = torch.arange(height, device=image.device).view(-1, 1) + 0.5 + refraction[0]
    columns = torch.arange(width, device=image.device) + 0.5 + refraction[1]
    seen = torch.stack([2 * columns / width - 1, 2 * rows / height - 1], -1)
    view = F.grid_sample(scene[None], seen[None], padding_mode="reflection", align_corners=False)[0]
    sky = (refraction[0] / (0.3 * side)).clamp(-1, 1)  # the lower part of a drop sees up
    view = view * (1 - 0.3 * sky) * (1 - 0.5 * rim**6)
    blurred = convolve(torch.cat([view * cover, cover[None]]), defocus)
    return linear_to_srgb(light * (1 - blurred[3:]) + blurred[:3])


LAYERS = (
    (3000, 0.001, 0.8),
    (1500, 0.0017, 0.9),
    (600, 0.0028, 0.95),
    (220, 0.0046, 0.95),
    (60, 0.008, 0.8),
    (14, 0.015, 0.5),
)
"""From far to near, at strength 1: flakes, their radius as a share of the image's side, and their opacity."""


VEIL, HAZE = 0.8, 0.2
"""The light of a thick veil of far snow, and the most of it that lies over the scene at strength 1."""


def flakes(share, most, radius, streak, height, width, draw):
    """What falling flakes cover.

    Args:
        share: of the flakes, in [0, 1].
        most: how many flakes there are at share 1.
        radius: about which theirs are, in pixels.
        streak: (2,), the way of a flake during the exposure, y and x in pixels.
        height, width: of the image, in pixels.
        draw: Draw.

    Returns:
        (1, H, W) in [0, 1].
    """
    places, density = draw.uniforms(most, 2) * torch.tensor([height, width]), 0.5 + 0.5 * draw.uniforms(most)
    cover = torch.zeros(1, height, width)
    for kind, size in enumerate((0.7 * radius, radius, 1.4 * radius)):
        mine = slice(kind, math.ceil(share * most), 3)
        spots, (rows, columns) = torch.zeros(height, width), places[mine].long().unbind(1)
        spots.index_put_((rows, columns), density[mine], accumulate=True)
        disc = aperture(size)
        cover += convolve(spots[None], disc / disc.max() * min(1, math.pi * size**2))
    return convolve(cover.clamp(0, 1), spread(torch.linspace(-0.5, 0.5, 128)[:, None] * streak)).clamp(0, 1)


@per_image
def snow(image, strength, draw):
    """Snow in six layers, from many small far flakes to a few large, thin near ones, and a veil of what is farther still.

    Flakes lie over the image K as z a + (1 - z) K, of color a where the mask z is (Liu et al. 2018, DesnowNet), and
    brighten it or leave it. K is the scene J under the veil A, T J + (1 - T) A (Chen et al. 2020, JSTASR), which is thicker
    where a smooth random field is high. Flakes fall during the exposure and draw streaks, longer the nearer they are.
    """
    height, width = image.shape[1:]
    side, light = side_of(image), srgb_to_linear(image)
    haze = HAZE * strength * (0.5 + 0.5 * smooth_field(draw, height, width)).to(image)
    light = light + haze * (srgb_to_linear(torch.tensor(VEIL)).to(image) - light)

    slant, speed, white = 0.4 * draw.normals().item(), draw.uniform(1, 6), draw.uniform(0.9, 1)
    for most, radius, opacity in LAYERS:
        angle = slant + 0.1 * draw.normals().item()
        streak = torch.tensor([math.cos(angle), math.sin(angle)]) * speed * radius * side
        z = opacity * flakes(strength, most, radius * side, streak, height, width, draw).to(image)
        light = light + z * (white - light).clamp(min=0)
    return linear_to_srgb(light)


LEFT = {
    "oceanic I": (0.805, 0.961, 0.982),
    "oceanic IA": (0.804, 0.955, 0.975),
    "oceanic IB": (0.83, 0.95, 0.968),
    "oceanic II": (0.8, 0.925, 0.94),
    "oceanic III": (0.75, 0.885, 0.89),
    "coastal 1": (0.75, 0.885, 0.875),
    "coastal 3": (0.71, 0.82, 0.8),
}
"""Share of red, green and blue light left after a meter of Jerlov's water types: Li, Anwar and Porikli 2020 (UWCNN)."""


FARTHEST, DEEPEST, BLUR = 10.0, 5.0, 0.004
"""At strength 1: meters to the farthest point, most meters to the surface, and forward scattering's blur, by the side."""


@per_image
def underwater(image, strength, draw):
    """The scene through up to 10 meters of water, under up to 5 meters of it; red goes first.

    Jaffe 1990 and McGlamery 1980: light is the direct part, which fades with the distance d as exp(-b d), the same scattered
    forward, which is blurred, and the veil B (1 - exp(-b' d)). As Akkaynak and Treibitz 2018 found, b' of the veil is not b.
    Both follow a Jerlov water type, drawn by the seed; the distance is a smooth random field, larger toward the top.
    """
    height, width = image.shape[1:]
    fading = -torch.tensor(LEFT[draw.choice(list(LEFT))]).log().view(3, 1, 1)
    depth, brightness, ratio = DEEPEST * draw.uniform(0.4, 1), draw.uniform(0.25, 0.5), draw.uniform(0.9, 1.4)
    veil = torch.exp(-fading * (depth + FARTHEST))
    veil = brightness * veil / veil.max()
    up = torch.linspace(1, 0, height).view(-1, 1)
    distance = strength * FARTHEST * (0.3 + 0.35 * up + 0.35 * smooth_field(draw, height, width))
    fading, veil, distance = (part.to(image) for part in (fading, veil, distance))

    light = srgb_to_linear(image) * torch.exp(-fading * strength * depth)
    sigma = BLUR * strength * side_of(image)
    scattered = convolve(light, gaussian(int(3 * sigma) + 1, sigma))
    forward = 1 - torch.exp(-0.3 * distance)
    light = (light + forward * (scattered - light)) * torch.exp(-fading * distance)
    return linear_to_srgb(light + veil * (1 - torch.exp(-ratio * fading * distance)))
