"""Photos that no training or tuning sees: scikit-learn's two samples, and two of scikit-image's."""

import numpy as np
import torch

from .scenes import load_photo

CROP = 256

HELD_OUT = {
    "pagoda": ("china.jpg", 80, 90),
    "trees": ("china.jpg", 170, 384),
    "dahlia": ("flower.jpg", 70, 180),
    "leaves": ("flower.jpg", 40, 0),
    "cat": ("chelsea", 30, 100),
    "rocket": ("rocket", 160, 190),
}
"""Name: (photo, top, left) of a 256-pixel crop."""


def held_out_photos():
    """{name: (3, 256, 256) float32 in [0, 1]}. Needs scikit-learn and scikit-image."""
    from sklearn.datasets import load_sample_image

    crops = {}
    for name, (photo, top, left) in HELD_OUT.items():
        pixels = load_sample_image(photo) if photo.endswith(".jpg") else load_photo(photo)
        crop = np.array(pixels[top : top + CROP, left : left + CROP])
        crops[name] = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
    return crops
