"""Single degradations of an image (3, H, W) in [0, 1], float32; each returns the same, and is the identity at strength 0.

Random draws come from the `generator` alone, so a seed gives the same image everywhere.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


def gaussian_noise(image, sigma, generator, gray=False):
    """Adds white Gaussian noise.

    Args:
        image: (3, H, W) in [0, 1].
        sigma: standard deviation on the 0-255 scale; 0 changes nothing.
        generator: torch.Generator on the CPU.
        gray: one field of noise for all channels instead of one for each.

    Returns:
        (3, H, W) in [0, 1].
    """
    noise = torch.randn((1 if gray else 3, *image.shape[1:]), generator=generator)
    return (image + noise * (sigma / 255)).clamp(0, 1)


def jpeg(image, quality):
    """JPEG compression at `quality` 1-100, color at half resolution; Pillow's, on the CPU whatever the device."""
    pixels = (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).to(image.device).float() / 255


def gaussian_blur(image, sigma):
    """Isotropic Gaussian blur of `sigma` pixels, edges reflected."""
    if sigma <= 0:
        return image
    radius = min(int(3 * sigma + 0.5) or 1, min(image.shape[1:]) - 1)
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(image[None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)[0]


def downscale(image, scale, mode="bicubic"):
    """`image` at 1/`scale` of its size (anti-aliased `bicubic` or `bilinear`, or `area`), at least 1 pixel a side."""
    if scale == 1:
        return image
    size = [max(1, round(extent / scale)) for extent in image.shape[1:]]
    antialias = {} if mode == "area" else {"antialias": True, "align_corners": False}
    return F.interpolate(image[None], size, mode=mode, **antialias)[0].clamp(0, 1)


def upscale(image, size):
    """`image` brought to `size` (H, W) by bicubic interpolation."""
    return F.interpolate(image[None], size, mode="bicubic", align_corners=False)[0].clamp(0, 1)


def low_light(image, exposure, generator, read_noise=0.004, photons=800):
    """The image under a share of its light, with the sensor's noise.

    Light is linear: pixels are linearized (gamma 2.2), scaled by `exposure`, given normal noise with the variance of
    photon and read noise, and encoded again.

    Args:
        image: (3, H, W) in [0, 1].
        exposure: share of the light that is left, in (0, 1]; at 1 the image is returned as it is.
        generator: torch.Generator on the CPU.
        read_noise: standard deviation of the Gaussian read noise, as a share of full scale.
        photons: electrons at full scale; their number's variance is the number itself (Poisson).

    Returns:
        (3, H, W) in [0, 1].
    """
    if exposure >= 1:
        return image
    light = image.clamp(0, 1) ** 2.2 * exposure
    variance = light / photons + read_noise**2
    light = light + torch.randn(light.shape, generator=generator) * variance.sqrt()
    return light.clamp(0, 1) ** (1 / 2.2)
