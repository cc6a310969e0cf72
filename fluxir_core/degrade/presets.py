"""Degradations by name, for evaluation, and a random mixture of them, for training the miniature."""

import torch

from .basic import downscale, gaussian_blur, gaussian_noise, jpeg, low_light, upscale


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


def degrade_named(image, name, seed):
    """`image` (3, H, W) in [0, 1] under the degradation `name` of EVALUATION, the same for the same `seed`."""
    if name not in EVALUATION:
        raise ValueError(f"degrade_named: no degradation '{name}'; use one of {', '.join(EVALUATION)}.")
    return EVALUATION[name](image, torch.Generator().manual_seed(seed))


def degrade_random(image, generator):
    """A random degradation of `image` (3, H, W) in [0, 1]: blur, a smaller size, little light, noise and JPEG, each by chance."""

    def uniform(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

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
        image = gaussian_noise(image, uniform(5, 45), generator, gray=uniform(0, 1) < 0.2)
    if uniform(0, 1) < 0.55:
        image = jpeg(image, uniform(25, 90))
    return upscale(image, size) if image.shape[1:] != size else image
