"""Blur kernels, odd a side and summing to 1, and what they do: a moving camera and a lens out of focus."""

import math

import torch

from .image import linear_to_srgb, per_image, side_of, srgb_to_linear


def convolve(image, kernel):
    """`image` (C, H, W) convolved with `kernel` (2r + 1, 2r + 1), edges reflected as often as r needs; the same shape."""
    radius = len(kernel) // 2
    height, width = image.shape[-2:]
    rows, columns = (_reflected(extent, radius).to(image.device) for extent in (height, width))
    padded = image[:, rows][:, :, columns]
    size = padded.shape[-2:]
    product = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.to(image), s=size)
    return torch.fft.irfft2(product, s=size)[:, 2 * radius :, 2 * radius :]


def _reflected(extent, radius):
    period = max(2 * extent - 2, 1)
    index = torch.arange(-radius, extent + radius) % period
    return torch.minimum(index, period - index)


def _grid(radius):
    """y and x of a kernel's pixels, (2r + 1, 2r + 1) each."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.meshgrid(steps, steps, indexing="ij")


def gaussian(radius, across, along=None, angle=0.0, power=1.0, plateau=False):
    """Gaussian kernel, isotropic or not, or one of its generalized forms (Wang et al. 2021, Real-ESRGAN, section 3.1).

    Args:
        radius: of the kernel, whole pixels.
        across: standard deviation in pixels.
        along: the same at a right angle to it; None for the same.
        angle: by which the kernel is turned, in radians.
        power: exponent of the squared Mahalanobis distance q in exp(-q^power / 2); 1 is the Gaussian.
        plateau: takes 1 / (1 + q^power) instead.

    Returns:
        (2 radius + 1, 2 radius + 1), summing to 1.
    """
    y, x = _grid(radius)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    q = ((u / across) ** 2 + (v / (along or across)) ** 2) ** power
    kernel = 1 / (1 + q) if plateau else torch.exp(-q / 2)
    return kernel / kernel.sum()


def sinc(radius, cutoff):
    """Low-pass kernel that rings: frequencies under `cutoff` (radians a pixel, to pi) in every direction pass.

    Wang et al. 2021, Real-ESRGAN, section 3.3.
    """
    y, x = _grid(radius)
    distance = torch.hypot(x, y)
    kernel = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * math.pi * distance)
    kernel[radius, radius] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def spread(points):
    """The image of a point of light that falls on `points` (n, 2), y and x in pixels from the middle, equally on each.

    Every point is shared by the four pixels around it, so that the kernel moves and grows with them continuously.
    """
    radius = math.ceil(points.abs().max().item()) + 1
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1)
    corner = points.floor()
    past = points - corner
    for dy in (0, 1):
        for dx in (0, 1):
            share = (past[:, 0] if dy else 1 - past[:, 0]) * (past[:, 1] if dx else 1 - past[:, 1])
            where = (corner[:, 0].long() + radius + dy, corner[:, 1].long() + radius + dx)
            kernel.index_put_(where, share, accumulate=True)
    return kernel / kernel.sum()


def aperture(radius, blades=0, angle=0.0, roundness=1.0):
    """The image of a point out of focus: the lens's opening, by geometrical optics.

    Args:
        radius: of the opening, in pixels.
        blades: corners of the polygon that the opening is; 0 for a disc.
        angle: by which the polygon is turned, in radians.
        roundness: how far its sides bulge, from 0, straight, to 1, the circle.

    Returns:
        A kernel, square with an odd side, summing to 1.
    """
    rays = max(12, math.ceil(2 * radius))
    y, x = _grid(rays)
    rim = 1.0
    if blades:
        sector = (torch.atan2(y, x) - angle) % (2 * math.pi / blades) - math.pi / blades
        rim = roundness + (1 - roundness) * math.cos(math.pi / blades) / torch.cos(sector)
    inside = torch.hypot(x, y) <= rays * rim
    return spread(torch.stack([y[inside], x[inside]], 1) * (radius / rays))


LONGEST, WIDEST = 0.08, 0.02
"""At strength 1, as shares of the image's side: the length of the camera's path, and the mean radius of a point's disc."""


def camera_path(draw, points=2048):
    """A camera's path (points, 2) of length 1 in an exposure, centered on its mean; all points take the same time.

    Its heading and its speed do random walks, and now and then it is shaken. After the random motion of
    Boracchi and Foi 2012 (Modeling the performance of image restoration from motion blur) and Kupyn et al. 2018 (DeblurGAN).
    """
    bend, shaken = draw.uniform(0.1, 1.5), draw.uniforms(points) < draw.uniform(0, 3) / points
    turns = draw.normals(points) * bend / math.sqrt(points) + draw.normals(points) * shaken
    heading = draw.uniform(0, 2 * math.pi) + turns.cumsum(0)
    speed = torch.exp(draw.normals(points).cumsum(0) / math.sqrt(points))
    steps = torch.stack([heading.sin(), heading.cos()], 1) * (speed / speed.sum())[:, None]
    walked = steps.cumsum(0)
    return walked - walked.mean(0)


@per_image
def motion_blur(image, strength, draw):
    """Camera shake: light is averaged along a random path of up to 8 % of the image's side (`camera_path`)."""
    return linear_to_srgb(convolve(srgb_to_linear(image), spread(camera_path(draw) * strength * LONGEST * side_of(image))))


@per_image
def defocus_blur(image, strength, draw):
    """A lens out of focus: every point becomes its aperture, of a radius around 2 % of the image's side.

    Thin-lens geometry (Potmesil and Chakravarty 1981), the aperture a polygon of 5 to 9 blades, more or less rounded.
    """
    radius = strength * WIDEST * side_of(image) * draw.uniform(0.8, 1.2)
    blades, angle, roundness = draw.choice((5, 6, 7, 8, 9)), draw.uniform(0, 2 * math.pi), draw.uniform()
    return linear_to_srgb(convolve(srgb_to_linear(image), aperture(radius, blades, angle, roundness)))
