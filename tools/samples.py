"""Makes the sample photos that the graphs begin with, in `samples`: real photos, whole and with known damage.

    python -m comfyui_fluxir.tools.samples FOLDER

FOLDER holds the originals, as `python -m comfyui_fluxir.training.miniature.photos FOLDER` fetches them. No model has been
trained on these photos.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from torch.nn import functional as F

from ..demo.comfyui import ROOT
from ..fluxir_core.degrade.presets import degrade_named
from ..fluxir_core.image.files import load_image, save_image

SAMPLES = ROOT / "samples"
SIDE = 512
"""Pixels of the shorter side. The longer one is what it is: most are no multiple of 16, as an artist's photos are not."""


@dataclass(frozen=True)
class Sample:
    """A photo, the part of it that is shown as shares (left, top, right, bottom), and its damage as `degrade_named` knows it."""

    photo: str
    part: tuple
    damage: str | None
    name: str


SHOWN = (
    Sample("dogs", (0.12, 0.24, 0.78, 0.74), "noise", "noisy"),
    Sample("room", (0, 0.08, 1, 0.88), "low_light", "dark"),
    Sample("brushes", (0, 0, 1, 1), "jpeg", "jpeg"),
    Sample("mountain", (0, 0, 1, 1), "sr4", "small"),
    Sample("stream", (0.15, 0.1, 0.95, 0.95), "strong", "damaged"),
    Sample("dandelion", (0, 0, 0.7, 1), None, "original"),
    Sample("dogs", (0.12, 0.24, 0.78, 0.74), None, "original"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of the originals")
    folder = parser.parse_args().folder
    for sample in SHOWN:
        image = small_part(load_image(folder / f"{sample.photo}.jpg"), sample.part)
        path = SAMPLES / f"fluxir_{sample.photo}_{sample.name}.jpg"
        save_image(degrade_named(image, sample.damage, seed=0) if sample.damage else image, path)
        print(path, flush=True)


def small_part(image, part):
    """The `part` of `image` (3, H, W), its shorter side brought to SIDE."""
    height, width = image.shape[1:]
    left, top, right, bottom = (round(share * extent) for share, extent in zip(part, (width, height, width, height)))
    image = image[:, top:bottom, left:right]
    scale = SIDE / min(image.shape[1:])
    size = [round(extent * scale) for extent in image.shape[1:]]
    return F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)


if __name__ == "__main__":
    main()
