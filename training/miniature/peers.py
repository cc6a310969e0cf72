"""What somebody without a model would do: OpenCV's denoiser, more light, bicubic enlargement."""

import numpy as np
import torch

from ...fluxir_core.degrade.presets import degrade_named
from .stream import PHOTO, ImageStream

STRENGTHS = (0, 3, 6, 10, 15, 22, 30)
"""fastNlMeansDenoisingColored's h; 0 leaves the image as it is."""

DARK = ("low_light", "strong")
CROPS, FIRST = 6, 5_000_000
"""Training crops the strength is tuned on, and the first one's number in the stream."""


def make_peer(degradation, photos=None):
    """(name, function of an image (3, H, W) in [0, 1]) for one of EVALUATION's degradations.

    OpenCV's fastNlMeansDenoisingColored at the strength that is best in PSNR on training crops (of the photos in `photos` too),
    behind a gain that brings the brightest hundredth to white where little light is the degradation. sr4 is enlarged already:
    its peer is the bicubic image itself. Needs OpenCV (the extra `train`).
    """
    if degradation == "sr4":
        return "bicubic", lambda image: image
    images = ImageStream(photos, 256)
    crops = []
    for i in range(FIRST, FIRST + 10 * CROPS):
        image, words = images(i)
        if words == PHOTO and len(crops) < CROPS:
            crops.append(image.float() / 255)
    degraded = [degrade_named(crop, degradation, seed=i) for i, crop in enumerate(crops)]
    bright = _brightened if degradation in DARK else (lambda image: image)

    def psnr(strength):
        errors = [(denoise(bright(own), strength) - crop).square().mean() for own, crop in zip(degraded, crops)]
        return -10 * torch.stack(errors).log10().mean()

    best = max(STRENGTHS, key=psnr)
    return f"OpenCV, h {best}", lambda image: denoise(bright(image), best)


def denoise(image, strength):
    """`image` (3, H, W) in [0, 1] by fastNlMeansDenoisingColored with h = hColor = `strength`."""
    import cv2

    if strength == 0:
        return image
    pixels = (image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    cleaned = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(pixels[..., ::-1]), None, strength, strength, 7, 21)
    return torch.from_numpy(np.ascontiguousarray(cleaned[..., ::-1])).permute(2, 0, 1).float() / 255


def _brightened(image):
    return (image / image.quantile(0.99).clamp(min=0.05)).clamp(0, 1)
