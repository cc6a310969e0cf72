"""The miniature's endless training set: image `i` is the same every time, and none is drawn twice."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from .photos import TRAINING, read_photo
from .scenes import TRAINING_PHOTOS, load_photo, photo_crop, scene

SCENES = 0.2
"""The share of procedural scenes; the rest are crops of photos."""

PHOTO = ["photo"]
"""The words of a photo crop."""


class ImageStream:
    """Squares of `size` pixels: crops of scikit-image's photos and of those in the folder `photos` (None: of the former alone),
    and dead-leaves scenes in their colors. Calling it with `i` gives (image (3, size, size) uint8, its list of words)."""

    def __init__(self, photos=None, size=256, seed=0):
        self.size, self.seed = size, seed
        self.photos = [load_photo(name) for name in TRAINING_PHOTOS]
        self.photos += [read_photo(photo, photos) for photo in TRAINING] if photos else []
        # Colorful photos count more: half of scikit-image's are gray.
        spread = [np.ptp(photo[::8, ::8].astype(np.int16), axis=-1).mean() for photo in self.photos]
        weights = [3 if own > 12 else 1 for own in spread]
        self._share = np.array(weights) / sum(weights)
        self.description = f"procedural dead-leaves scenes and crops of {len(self.photos)} photos: scikit-image's" + (
            " and those of training/miniature/photos.py" if photos else ""
        )

    def __call__(self, i):
        rng = np.random.default_rng((self.seed, i))
        photo = self.photos[rng.choice(len(self.photos), p=self._share)]
        if rng.random() < SCENES:
            rows, columns = (rng.integers(0, extent, 64) for extent in photo.shape[:2])
            pixels, words = scene(self.size, photo[rows, columns], rng)
        else:
            # Much of a photo is sky or blur: of two crops the one with more detail.
            pixels, words = max((photo_crop(photo, self.size, rng) for _ in range(2)), key=_detail), PHOTO
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1), words


def _detail(pixels):
    """How much of `pixels` (H, W, 3) its neighbors do not tell."""
    light = pixels.astype(np.float32).mean(-1)
    return np.abs(np.diff(light, axis=0)).mean() + np.abs(np.diff(light, axis=1)).mean()


class Window:
    """The items of a stream that a step may use: `size` at once, of which `fresh` are new at every step.

    `make(i)` gives the i-th item. A thread makes the next step's while this one is under way; what a step gets depends on its
    number alone, so a resumed run goes on as it was.
    """

    def __init__(self, make: Callable[[int], Any], size, fresh):
        self.make, self.size, self.fresh = make, size, fresh
        self._held: dict[int, Future] = {}
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, step):
        """The list of the step's `size` items."""
        first = step * self.fresh
        wanted = range(first, first + self.size)
        self._held = {i: self._held.get(i) or self._thread.submit(self.make, i) for i in range(first, wanted.stop + self.fresh)}
        return [self._held[i].result() for i in wanted]
