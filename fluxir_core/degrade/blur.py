"""Blur of a moving camera and of a lens out of focus, both of light, so that lamps draw streaks and discs."""

import math

import torch

from .kernel import aperture, convolve, spread
from .picture import per_picture, side_of
from .srgb import encoded, linear

LONGEST, WIDEST = 0.08, 0.02
"""At strength 1, as shares of the picture's side: the length of the camera's path, and the mean radius of a point's disc."""


def camera_path(draw, points=2048):
    """A camera's path (points, 2) of length 1 in an exposure, centred on its mean; all points take the same time.

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


@per_picture
def motion_blur(image, strength, draw):
    """Camera shake: light is averaged along a random path of up to 8 % of the picture's side (`camera_path`)."""
    return encoded(convolve(linear(image), spread(camera_path(draw) * strength * LONGEST * side_of(image))))


@per_picture
def defocus_blur(image, strength, draw):
    """A lens out of focus: every point becomes its aperture, of a radius around 2 % of the picture's side.

    Thin-lens geometry (Potmesil and Chakravarty 1981), the aperture a polygon of 5 to 9 blades, more or less rounded.
    """
    radius = strength * WIDEST * side_of(image) * draw.uniform(0.8, 1.2)
    blades, angle, roundness = draw.choice((5, 6, 7, 8, 9)), draw.uniform(0, 2 * math.pi), draw.uniform()
    return encoded(convolve(linear(image), aperture(radius, blades, angle, roundness)))
