"""Batches of the miniature's own bank."""

import torch

from ...fluxir_core.flow.noise import keyed_generator
from ..data.batch import Batch
from .autoencoder import open_autoencoder
from .bank import draw_bank, encode_bank
from .latents import LatentCrops
from .text import encode_words


class MiniatureBatches:
    """Crops of the miniature's training bank, drawn and encoded once in `work`.

    Three steps of four see `batch` crops of half of `size` pixels a side, the fourth whole images, a quarter as many.
    `prompts` shows their words, else the empty prompt.
    """

    description = fingerprint = "procedural dead-leaves scenes and crops of photos bundled with scikit-image"
    validation = ()

    def __init__(self, size, batch, prompts, bank, seed=0, device="cpu"):
        self.size, self.batch, self.prompts, self.seed = size, batch, prompts, seed
        self.crops, self.empty = LatentCrops(bank, device), encode_words([])

    @classmethod
    def for_model(cls, folder, plan, batch, prompts, work, seed=0, device="cpu"):
        """The batches of `plan` for the model folder `folder`, encoded by its autoencoder. Raises ValueError where it is no miniature."""
        work.mkdir(parents=True, exist_ok=True)
        bank = encode_bank(plan, work, open_autoencoder(folder, device), *draw_bank(plan, work))
        return cls(plan.size, batch, prompts, bank, seed, device)

    def rows(self, step):
        """How many images step `step` sees."""
        return max(1, self.batch // 4) if step % 4 == 3 else self.batch

    def __call__(self, step, rows):
        """The Batch of the images at `rows` of step `step`."""
        side = self.size // 8 if step % 4 == 3 else self.size // 16
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_generator(self.seed, "bank", step).initial_seed())
            whole = self.crops.sample(self.rows(step), side)
        own = [tensor[rows.start : rows.stop] for tensor in (whole.clean, whole.degraded, whole.text, whole.pooled)]
        if not self.prompts:
            own[2:] = (torch.zeros_like(tensor) for tensor in own[2:])
        return Batch(*own, whole.image_ids, whole.grid)
