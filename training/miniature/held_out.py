"""Photos that no training or tuning sees, and the crops of them that are measured."""

import numpy as np
import torch
from PIL import Image

from . import photos
from .scenes import load_photo

CROP, SHORTER_SIDE = 256, 512
"""Pixels a side of a crop; what a fetched photo's shorter side is brought to before."""

HELD_OUT = {
    "pagoda": ("china.jpg", 80, 90),
    "trees": ("china.jpg", 170, 384),
    "dahlia": ("flower.jpg", 70, 180),
    "leaves": ("flower.jpg", 40, 0),
    "cat": ("chelsea", 30, 100),
    "rocket": ("rocket", 160, 190),
}
"""Name: (photo, top, left), of scikit-learn's two samples and two of scikit-image's, as they are."""

FETCHED = {
    "dogs": ("dogs", 150, 100),
    "brushes": ("brushes", 40, 60),
    "brush tips": ("brushes", 200, 230),
    "stream": ("stream", 60, 300),
    "cascade": ("stream", 200, 120),
    "mountain": ("mountain", 60, 60),
    "meadow": ("mountain", 230, 280),
    "bottle": ("room", 150, 120),
    "drum": ("room", 420, 60),
    "dandelion": ("dandelion", 60, 110),
    "dandelions": ("dandelion", 120, 440),
    "clock": ("clock", 90, 200),
    "nuthatch": ("nuthatch", 140, 200),
    "dune": ("dune", 100, 180),
    "ladybird": ("ladybird", 110, 430),
    "cups": ("cups", 200, 300),
    "boats": ("boats", 180, 60),
    "sky": ("boats", 30, 330),
}
"""The same of photos.HELD_OUT, after the resize to SHORTER_SIDE: eighteen crops of twelve photos."""


def held_out_photos(folder=None):
    """{name: (3, 256, 256) float32 in [0, 1]}: HELD_OUT, and FETCHED where `folder` holds the fetched photos.

    Needs scikit-learn and scikit-image. Raises ValueError when a photo is missing in `folder`.
    """
    from sklearn.datasets import load_sample_image

    found = {
        name: (load_sample_image(own) if own.endswith(".jpg") else load_photo(own), *at) for name, (own, *at) in HELD_OUT.items()
    }
    if folder:
        listed = {photo.name: photo for photo in photos.HELD_OUT}
        small = {name: _resized(photos.read_photo(photo, folder)) for name, photo in listed.items()}
        found |= {name: (small[own], *at) for name, (own, *at) in FETCHED.items()}
    crops = {name: np.array(pixels[top : top + CROP, left : left + CROP]) for name, (pixels, top, left) in found.items()}
    return {name: torch.from_numpy(crop).permute(2, 0, 1).float() / 255 for name, crop in crops.items()}


def _resized(pixels):
    height, width = pixels.shape[:2]
    scale = SHORTER_SIDE / min(height, width)
    return np.asarray(Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.BOX))
