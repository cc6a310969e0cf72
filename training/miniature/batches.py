"""What a training step of the miniature sees: crops of pairs that are degraded and encoded on the way."""

import torch

from ...fluxir_core.degrade.presets import degrade_random
from ...fluxir_core.flow.noise import keyed_generator
from ..data.batch import Batch
from .autoencoder import open_autoencoder
from .latents import PairStream
from .photos import fetch_photos
from .stream import ImageStream, Window
from .text import encode_words

PAIRS, FRESH = 256, 4
"""How many pairs a step's crops are taken from, and how many of them are new: each is cropped about sixteen times."""


class MiniatureBatches:
    """Batches of `batch` crops of half the side of `images` (an ImageStream); every fourth step a quarter as many whole images.

    `degrade(image, generator)` degrades them, None leaves them; `prompts` shows their words, else the empty prompt. `decode` is
    the autoencoder's, on latents (B, 16, h, w), and `empty` the empty prompt's (text, pooled).
    """

    validation = ()

    def __init__(self, images, autoencoder, batch, prompts=False, degrade=degrade_random, device="cpu", pairs=PAIRS):
        self.size, self.batch, self.prompts, self.device, self.seed = images.size, batch, prompts, device, images.seed
        self.description = self.fingerprint = images.description
        self.decode, self.empty = autoencoder.decode, encode_words([])
        self._window = Window(PairStream(images, autoencoder, degrade), pairs, min(FRESH, pairs))

    @classmethod
    def for_model(cls, folder, size, batch, prompts, photos=None, seed=0, device="cpu", **options):
        """The batches for a model folder, encoded by its autoencoder.

        Args:
            folder: Path of the model folder.
            size: pixels a side of a whole image.
            batch: crops a step.
            prompts: whether they show their words, else the empty prompt.
            photos: the folder that the photographs are fetched to; None for scikit-image's alone.
            seed: of the images.
            device: where they are encoded and given.
            options: MiniatureBatches' `degrade` and `pairs`.

        Returns:
            MiniatureBatches.

        Raises:
            ValueError: the folder is no miniature.
        """
        if photos:
            fetch_photos(photos)
        return cls(ImageStream(photos, size, seed), open_autoencoder(folder, device), batch, prompts, device=device, **options)

    def rows(self, step):
        """How many images step `step` sees."""
        return max(1, self.batch // 4) if step % 4 == 3 else self.batch

    def __call__(self, step, rows):
        """The Batch of the images at `rows` of step `step`."""
        side = self.size // 8 if step % 4 == 3 else self.size // 16
        pairs, drawn = self._window(step), []
        for row in rows:
            generator = keyed_generator(self.seed, "crop", step, row)
            index = int(torch.randint(len(pairs), (), generator=generator))
            top, left = torch.randint(self.size // 8 - side + 1, (2,), generator=generator).tolist()
            clean, degraded, *prompt = pairs[index]
            window = (slice(None), slice(top, top + side), slice(left, left + side))
            latents = clean[window].float(), degraded[window].float()
            drawn.append((*latents, *(prompt if self.prompts else self.empty)))
        clean, degraded, text, pooled = (torch.stack(column) for column in zip(*drawn))
        return Batch.of_latents(clean, degraded, text, pooled, self.device)

    def whole(self, step):
        """The whole batch of step `step`."""
        return self(step, range(self.rows(step)))
