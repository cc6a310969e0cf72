"""Fitting the NIQE model that ships with the package."""

import numpy as np
import torch

from ...fluxir_core.image.pixels import luma
from ...fluxir_core.verify.niqe import features

SHARPEST = 0.75
"""Patches under this share of their photo's greatest sharpness are left out (Mittal et al., section II-B)."""


def fit(photos):
    """Mean (36,) and covariance (36, 36) of the sharp patches of `photos` ((H, W, 3) uint8 each), and their number."""
    kept = []
    for photo in photos:
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
        found, sharpness = features(luma(image))
        kept.append(found[sharpness > SHARPEST * sharpness.max()])
    kept = torch.cat(kept).double()
    return {"mean": kept.mean(0).float(), "covariance": torch.cov(kept.T).float()}, len(kept)
