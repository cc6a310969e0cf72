"""Degradations by name, for evaluation, and what training images are degraded by."""

import re
from functools import partial

import torch

from .basic import downscale, gaussian_blur, gaussian_noise, jpeg, low_light, upscale
from .tasks import TASKS


def _strong(image, generator):
    return jpeg(gaussian_noise(low_light(image, 0.12, generator), 30, generator), 40)


def _super_resolution(image, generator):
    small = gaussian_noise(downscale(image, 4), 5, generator)
    return upscale(jpeg(small, 70), image.shape[1:])


EVALUATION = {
    "noise": lambda image, generator: gaussian_noise(image, 30, generator),
    "jpeg": lambda image, generator: jpeg(image, 40),
    "low_light": lambda image, generator: low_light(image, 0.12, generator),
    "strong": _strong,
    "sr4": _super_resolution,
}
"""Evaluated degradations: noise of sigma 30; JPEG 40; 12 % of the light; these three in one image; 4x smaller with noise of
sigma 5 and JPEG 70, brought back by bicubic interpolation."""


OTHER_STRENGTHS = {
    "noise15": lambda image, generator: gaussian_noise(image, 15, generator),
    "noise50": lambda image, generator: gaussian_noise(image, 50, generator),
    "jpeg10": lambda image, generator: jpeg(image, 10),
    "jpeg20": lambda image, generator: jpeg(image, 20),
    "jpeg60": lambda image, generator: jpeg(image, 60),
}
"""Two of them at further strengths: noise of sigma 15 and 50, JPEG at quality 10, 20 and 60."""


def degrade_named(image, name, seed):
    """`image` (3, H, W) in [0, 1] under the degradation `name` of EVALUATION or OTHER_STRENGTHS, the same for the same `seed`."""
    known = EVALUATION | OTHER_STRENGTHS
    if name not in known:
        raise ValueError(f"degrade_named: no degradation '{name}'; use one of {', '.join(known)}.")
    return known[name](image, torch.Generator().manual_seed(seed))


def degrade_random(image, generator):
    """A random degradation of `image` (3, H, W) in [0, 1]: blur, a smaller size, little light, noise and JPEG, each by chance.

    Two images in five show one kind alone, or the three of `strong`, at a random strength; the others any mixture.
    """

    def uniform(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    if uniform(0, 1) < 0.4:
        return _one_kind(image, generator, uniform)
    size = image.shape[1:]
    if uniform(0, 1) < 0.35:
        image = low_light(image, uniform(0.06, 0.5), generator)
    if uniform(0, 1) < 0.3:
        image = gaussian_blur(image, uniform(0.3, 2.0))
    if uniform(0, 1) < 0.45:
        mode = ("bicubic", "bilinear", "area")[int(uniform(0, 3))]
        image = downscale(image, uniform(1.5, 4.2), mode)
        if uniform(0, 1) < 0.6:
            image = gaussian_noise(image, uniform(1, 12), generator, gray=uniform(0, 1) < 0.3)
    elif uniform(0, 1) < 0.65:
        image = gaussian_noise(image, uniform(3, 55), generator, gray=uniform(0, 1) < 0.2)
    if uniform(0, 1) < 0.55:
        image = jpeg(image, uniform(10, 90))
    return upscale(image, size) if image.shape[1:] != size else image


def _one_kind(image, generator, uniform):
    kind = int(uniform(0, 5))
    if kind == 0:
        return gaussian_noise(image, uniform(5, 55), generator)
    if kind == 1:
        return jpeg(image, uniform(8, 70))
    if kind == 2:
        return low_light(image, uniform(0.06, 0.4), generator)
    if kind == 3:
        small = gaussian_noise(downscale(image, uniform(2, 4.2)), uniform(0, 8), generator)
        return upscale(jpeg(small, uniform(50, 95)), image.shape[1:])
    return jpeg(gaussian_noise(low_light(image, uniform(0.06, 0.4), generator), uniform(5, 45), generator), uniform(25, 80))


STRENGTHS = (0.15, 0.9)
"""Of a task, drawn uniformly for each image."""


def _task(names, image, generator, strengths=STRENGTHS):
    """`image` under one of the tasks `names`, all equally likely, at a strength from the range `strengths`."""
    name = names[torch.randint(len(names), (), generator=generator)]
    low, high = strengths
    strength = low + (high - low) * torch.rand((), generator=generator).item()
    seed = torch.randint(2**31, (), generator=generator).item()
    return TASKS[name](image[None], strength, [seed])[0]


TRAINING = {
    "mixture": degrade_random,
    "tasks": partial(_task, list(TASKS)),
    **{re.sub(r"\W", "_", name.lower()): partial(_task, [name]) for name in TASKS},
    "real_esrgan": partial(_task, ["Real-ESRGAN"], strengths=(1.0, 1.0)),
}
"""What training images can be degraded by, (image (3, H, W) in [0, 1], generator) -> image: a random mixture; one of the seven tasks
and Real-ESRGAN by chance; each task alone; Real-ESRGAN's whole pipeline, as its paper has it."""


def degrade_by_shares(shares, image, generator):
    """`image` (3, H, W) in [0, 1] under one degradation of TRAINING, drawn by `shares` {name: weight, 0 or more}.

    Returns the degraded image, the same for generators of the same state. Raises ValueError where `check_shares` does.
    """
    check_shares(shares)
    names = list(shares)
    drawn = torch.multinomial(torch.tensor([float(shares[name]) for name in names]), 1, generator=generator)
    return TRAINING[names[drawn]](image, generator)


def check_shares(shares):
    """Raises ValueError unless `shares` {name: weight} names degradations of TRAINING, with a weight above 0 among them."""
    for name, weight in shares.items():
        if name not in TRAINING:
            raise ValueError(f"there is no degradation {name!r}; use some of {', '.join(TRAINING)}.")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"the share of {name} is {weight}; use 0 or more.")
    if not any(shares.values()):
        raise ValueError("no degradation has a share above 0; give one, such as mixture: 1.")
