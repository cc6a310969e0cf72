"""Drift as a score: how far a restored image has slid against its input, which edit models do."""

import torch

from ..image.align import measure_drift
from ..image.pixels import normalize
from .fidelity import reference_batch


class Drift:
    """Minus the root mean square distance, in pixels, by which an image's points have moved against the input; 0 is best."""

    name = "drift"

    def __call__(self, images, reference=None):
        if reference is None:
            raise ValueError("Drift: no reference was given; connect the degraded input.")
        images, finite = normalize(images, minimum=1)
        given, whole = reference_batch(reference, images)
        rows = given.expand(len(images), -1, -1, -1)
        moved = [measure_drift(image, row).pixels(*image.shape[-2:]) for image, row in zip(images, rows)]
        return torch.where(finite & whole, -torch.tensor(moved, device=images.device), -torch.inf)
