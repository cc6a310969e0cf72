"""The training bank as latents: encoded once, then cropped at random, clean and degraded at the same place."""

from dataclasses import dataclass

import torch

from ..data.batch import Batch
from .text import encode_words


@dataclass
class LatentBank:
    """`clean` (N, 16, h, w) and `degraded` (N, K, 16, h, w) latents in network space, half precision; `words`: N lists."""

    clean: torch.Tensor
    degraded: torch.Tensor
    words: list


@torch.no_grad()
def encode_images(autoencoder, images, batch=32):
    """Latents (N, 16, H/8, W/8), half precision, of `images` (N, 3, H, W) uint8."""
    encoded, device = [], next(autoencoder.parameters()).device
    for chunk in images.split(batch):
        pixels = (chunk.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            encoded.append(autoencoder.encode(pixels).half().cpu())
    return torch.cat(encoded).contiguous()


class LatentCrops:
    """Draws random crops from a LatentBank to `device`, with torch's global generator."""

    def __init__(self, bank, device="cpu"):
        self.bank, self.device = bank, device
        embedded = [encode_words(words) for words in bank.words]
        self.text = torch.stack([text for text, _ in embedded])
        self.pooled = torch.stack([pooled for _, pooled in embedded])

    def sample(self, batch, side):
        """A Batch of `batch` crops of `side` x `side` latents, one of the picture's degraded versions with each."""
        rows = torch.randint(len(self.bank.clean), (batch,))
        versions = torch.randint(self.bank.degraded.shape[1], (batch,))
        top, left = torch.randint(self.bank.clean.shape[-1] - side + 1, (2,)).tolist()
        window = (slice(None), slice(top, top + side), slice(left, left + side))
        clean = torch.stack([self.bank.clean[row][window] for row in rows]).float()
        degraded = torch.stack([self.bank.degraded[row, k][window] for row, k in zip(rows, versions)]).float()
        return Batch.of_latents(clean, degraded, self.text[rows], self.pooled[rows], self.device)
