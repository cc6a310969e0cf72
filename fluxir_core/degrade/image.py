"""How a degradation meets a batch: image by image, each with the random numbers of its own seed.

And what degradations share: light and its sRGB encoding (IEC 61966-2-1), and smooth random fields.
"""

import functools

import torch
from torch.nn import functional as F


class Draw:
    """The random numbers of one image. They are drawn on the CPU, so that a seed means the same on every device."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed % 2**64)

    def uniform(self, low=0.0, high=1.0):
        """A float between `low` and `high`."""
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def uniforms(self, *shape):
        """Numbers between 0 and 1 in a tensor of `shape`."""
        return torch.rand(shape, generator=self.generator)

    def normals(self, *shape):
        """Numbers of mean 0 and variance 1 in a tensor of `shape`."""
        return torch.randn(shape, generator=self.generator)

    def choice(self, options, weights=None):
        """One of `options`, by `weights` or each as likely as the others."""
        weights = torch.ones(len(options)) if weights is None else torch.tensor(weights)
        return options[torch.multinomial(weights, 1, generator=self.generator).item()]

    def branch(self):
        """Another Draw that follows from this one: however much is drawn from it, this one goes on in the same way."""
        return Draw(torch.randint(2**32, (), generator=self.generator).item())


def check(images, strength, seeds):
    """Raises ValueError, in one sentence, unless `per_image` can work with these."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"degrade: images of shape {tuple(images.shape)} and type {images.dtype}; give floats (B, 3, H, W) in [0, 1]."
        )
    if not 0 <= strength <= 1:
        raise ValueError(f"degrade: strength {strength}; give a number from 0 to 1.")
    if len(seeds) != len(images):
        raise ValueError(f"degrade: {len(seeds)} seeds for {len(images)} images; give one for each.")
    for number, image in enumerate(images, 1):
        if not image.isfinite().all():
            raise ValueError(f"degrade: image {number} holds NaN or infinity; give one without.")


def per_image(degrade):
    """Makes `degrade(image, strength, draw)`, for one image (3, H, W) float32 and 0 < strength <= 1, work on batches.

    The result takes `images` (B, 3, H, W) in [0, 1] of any float type on any device, `strength` in [0, 1] and one integer
    seed for each image, and returns images of the same shape, type and device in [0, 1]. It computes in float32; values
    outside [0, 1] are clipped first. At strength 0 it returns `images` as they are. An image and its seed give the same
    result in every batch. Raises ValueError for other shapes, a wrong number of seeds, a strength outside its range, and
    images with NaN or infinity.
    """

    @functools.wraps(degrade)
    def batch(images, strength, seeds):
        check(images, strength, seeds)
        if strength == 0 or images.numel() == 0:
            return images
        clean = images.float().clamp(0, 1)
        degraded = [degrade(image, strength, Draw(seed)).clamp(0, 1) for image, seed in zip(clean, seeds)]
        return torch.stack(degraded).to(images.dtype)

    return batch


def side_of(image):
    """The side in pixels of a square of the area of `image` (..., H, W): lengths that are seen scale with it."""
    return (image.shape[-2] * image.shape[-1]) ** 0.5


def srgb_to_linear(encoded):
    """The light, in [0, 1] of full scale, that sRGB values in [0, 1] stand for."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light):
    """The sRGB values of `light`, which is clipped to [0, 1]."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def smooth_field(draw, height, width, cells=2, octaves=3):
    """A smooth random field, the same at every resolution: a sum of bicubically interpolated normal numbers.

    Args:
        draw: Draw.
        height, width: of the field, in pixels.
        cells: of the first octave's grid, about so many a side.
        octaves: how many are summed, each on a grid twice as fine as the last, with half the amplitude.

    Returns:
        (H, W), from 0 to 1, on the CPU.
    """
    field = torch.zeros(1, 1, height, width)
    for octave in range(octaves):
        grid = draw.normals(1, 1, cells * 2**octave + 2, cells * 2**octave + 2)
        field += F.interpolate(grid, (height, width), mode="bicubic", align_corners=True) / 2**octave
    low, high = field.min(), field.max()
    return ((field - low) / (high - low).clamp(min=1e-6))[0, 0]
