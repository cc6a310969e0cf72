"""How noisy an image is, told from the image alone."""

import torch
from torch.nn import functional as F

from .pixels import normalize


def noise_blocks(gray):
    """Standard deviation of white noise in the blocks of 8 pixels of `gray` (B, 1, H, W), the image's range: (B, blocks).

    The difference of two Laplacians leaves noise and little else (Immerkaer, 1996). H and W are at least 10.
    """
    kernel = gray.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    residual = F.conv2d(gray, kernel[None, None])
    return F.avg_pool2d(residual.square(), 8).flatten(1).sqrt()


def noise_power(images, averaged=1.0):
    """Power of the noise of `images` (B, 3, H, W) in [0, 1], after the mean over areas of `averaged` pixels, channel mean: (B,).

    Measured at full and, for areas of 4 pixels or more, at half size (noise that was compressed or resized is coarse), white
    noise assumed from there on, in each quarter of the brightness range alone, because a sensor's noise depends on it.
    """
    planes = normalize(images)[0].flatten(0, 1)[:, None]
    powers = [_white_noise(planes) / averaged]
    if averaged >= 4:
        powers.append(_white_noise(F.avg_pool2d(planes, 2)) * 4 / averaged)
    return torch.stack(powers).amax(0).unflatten(0, (-1, 3)).mean(1)


def _white_noise(planes):
    """Noise power of `planes` (N, 1, H, W): (N,). The factor undoes the bias of the flatter third on white noise."""
    levels = noise_blocks(planes)
    brightness = F.avg_pool2d(planes[..., 1:-1, 1:-1], 8).flatten(1)
    levels = levels.gather(1, brightness.argsort(1))
    return torch.stack([(1.1 * part.quantile(0.3, dim=1)).square() for part in levels.chunk(4, 1)]).mean(0)
