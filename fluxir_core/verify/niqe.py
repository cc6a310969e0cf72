"""NIQE (Mittal, Soundararajan and Bovik, 2013) with a model fitted on freely usable photos.

An image is good when the statistics of its locally normalized luma are those of undistorted photos. Differs from the
paper in the patches: 64 pixels with a stride of 32 instead of 96 apart, so that small images hold enough of them.
"""

from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ..image.pixels import blur, luma, normalize

PATCH, STRIDE = 64, 32
MODEL_FILE = Path(__file__).with_name("niqe.safetensors")


@lru_cache(maxsize=1)
def _shape_table():
    """Shapes of generalized Gaussians and, increasing with them, the ratio E|x|^2 / E[x^2] that each has."""
    shape = torch.arange(0.2, 10, 0.001, dtype=torch.float64)
    ratio = torch.exp(2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape))
    return shape.float(), ratio.float()


def _shape(ratio):
    shapes, ratios = (table.to(ratio.device) for table in _shape_table())
    return shapes[torch.searchsorted(ratios, ratio.contiguous()).clamp(max=len(shapes) - 1)]


def _asymmetric_gaussian(x):
    """Asymmetric generalized Gaussian fitted to `x`'s last axis: (..., 4) shape, mean, left and right scale (not variance)."""

    def side(mask):
        return ((x * x * mask).sum(-1) / mask.sum(-1).clamp(min=1)).sqrt().clamp(min=1e-6)

    left, right = side(x < 0), side(x > 0)
    balance = left / right
    ratio = x.abs().mean(-1) ** 2 / (x * x).mean(-1).clamp(min=1e-12)
    shape = _shape(ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2)
    gamma = [torch.lgamma(k / shape) for k in (1, 2, 3)]
    width = torch.exp(0.5 * (gamma[0] - gamma[2]))
    mean = (right - left) * width * torch.exp(gamma[1] - gamma[0])
    return torch.stack([shape, mean, left * width, right * width], -1)


def _patches(plane, size, stride):
    """(B, 1, H, W) as (B, patches, size * size)."""
    return F.unfold(plane, size, stride=stride).transpose(1, 2)


def features(gray):
    """NIQE's features of `gray` (B, 1, H, W) in [0, 255], at least 64 pixels a side.

    Returns ((B, P, 36) features of the P patches, (B, P) their sharpness: the mean local deviation, section II-B).
    """
    gray = _crop_to_stride(gray)  # so that both scales hold the same patches
    scales, sharpness = [], None
    for scale in (1, 2):
        mean = blur(gray, 7 / 6, 3)
        deviation = (blur(gray * gray, 7 / 6, 3) - mean * mean).clamp(min=0).sqrt()
        structure = (gray - mean) / (deviation + 1)
        size, stride = PATCH // scale, STRIDE // scale
        patches = _patches(structure, size, stride)
        if sharpness is None:
            sharpness = _patches(deviation, size, stride).mean(-1)
        whole = _asymmetric_gaussian(patches)
        found = [whole[..., :1], whole[..., 2:].mean(-1, keepdim=True)]
        square = patches.unflatten(-1, (size, size))
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            product = square * torch.roll(square, shift, dims=(-2, -1))
            found.append(_asymmetric_gaussian(product.flatten(-2)))
        scales.append(torch.cat(found, -1))
        size = [extent // 2 for extent in gray.shape[2:]]
        gray = F.interpolate(gray, size, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat(scales, -1), sharpness


def _crop_to_stride(images):
    """The middle of `images` (B, C, H, W) with sides that are multiples of the patches' stride."""
    height, width = (extent // STRIDE * STRIDE for extent in images.shape[2:])
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]


class NIQE:
    """Minus the NIQE distance of images to the statistics of undistorted photos; needs no reference."""

    name = "niqe"

    def __init__(self, model=None):
        """`model`: {"mean": (36,), "covariance": (36, 36)}; without it, the one shipped with the package."""
        self.model = load_file(MODEL_FILE) if model is None else model

    def __call__(self, images, reference=None):
        images, finite = normalize(images)
        scores = torch.stack([self._distance(image) for image in images.split(1)])
        return torch.where(finite, -scores, -torch.inf)

    def _distance(self, image):
        found = features(255 * luma(image))[0][0].double()
        centered = found - found.mean(0)
        covariance = centered.T @ centered / max(1, len(found) - 1)
        mean, model = self.model["mean"].to(found), self.model["covariance"].to(found)
        apart = found.mean(0) - mean
        return (apart @ torch.linalg.pinv((covariance + model) / 2, hermitian=True) @ apart).clamp(min=0).sqrt().float()
