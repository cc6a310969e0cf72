"""The training images as pairs of latents, clean and degraded, made as they are needed."""

from typing import NamedTuple

import torch

from ...fluxir_core.degrade.presets import degrade_random
from .text import encode_words


class Pair(NamedTuple):
    """Latents `clean`, `degraded` (16, h, w) in network space, half precision, and the words' `text` (8, 64), `pooled` (32,)."""

    clean: torch.Tensor
    degraded: torch.Tensor
    text: torch.Tensor
    pooled: torch.Tensor


class PairStream:
    """Calling it with `i` gives the Pair of image `i` of `images` (an ImageStream), the same every time.

    `degrade(image, generator)` spoils an image (3, H, W) in [0, 1]; None leaves it as it is.
    """

    def __init__(self, images, autoencoder, degrade=degrade_random):
        self.images, self.autoencoder, self.degrade = images, autoencoder, degrade

    def __call__(self, i):
        image, words = self.images(i)
        pixels = [image.float() / 255]
        if self.degrade:
            pixels.append(self.degrade(pixels[0], torch.Generator().manual_seed(self.images.seed * 1_000_003 + i)))
        latents = encode(self.autoencoder, torch.stack(pixels))
        return Pair(latents[0], latents[-1], *encode_words(words))


@torch.no_grad()
def encode(autoencoder, pixels):
    """Latents (B, 16, H/8, W/8), half precision, on the CPU, of `pixels` (B, 3, H, W) in [0, 1]."""
    device = next(autoencoder.parameters()).device
    with torch.autocast(device.type, torch.bfloat16):
        return autoencoder.encode(pixels.to(device).contiguous(memory_format=torch.channels_last)).half().cpu()
