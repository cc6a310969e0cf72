"""Writes docs/study.html: the README's comparisons as a blind study, so that a visitor can vote.

    python -m comfyui_fluxir.training.studies.readme_study

Run when the bundled weights or the page have changed. Everything has seed 0, as in the README.
"""

from pathlib import Path

import torch

from ...fluxir_core.degrade.presets import degrade_named
from ...fluxir_core.image.files import load_image
from ..diffusers_host.restorer import Restorer
from ..miniature.peers import make_peer
from ..outputs import deliver_data
from .blind_study import study_page

ROOT = Path(__file__).resolve().parents[2]
PAGE, PHOTO = ROOT / "docs" / "study.html", ROOT / "samples" / "fluxir_dogs_original.jpg"
SHOWN = ("noise", "low_light", "strong")
TITLE = "One photo, three degradations, four results: which is better?"


def compared(restorer, original):
    """({degradation: {method: (3, H, W)}}, {degradation: (3, H, W) degraded}) of the photo `original`."""
    degraded = {name: degrade_named(original, name, seed=0) for name in SHOWN}
    stacked = torch.stack(list(degraded.values()))
    restored, alone = restorer.restore(stacked, [0] * len(stacked), 20), restorer.through_vae(stacked)
    images = {
        name: {
            "miniature": restored[i],
            "autoencoder alone": alone[i],
            "OpenCV": make_peer(name)[1](degraded[name]),
            "original": original,
        }
        for i, name in enumerate(SHOWN)
    }
    return images, degraded


if __name__ == "__main__":
    deliver_data(PAGE, study_page(TITLE, *compared(Restorer("miniature"), load_image(PHOTO)), ".webp"))
    print(PAGE)
