"""What tiles do to a restoration: visible seams and quality, by tile size and overlap, against the image in one piece.

How seams are scored and the gate on the score are chosen on images of the training kind; held-out photos are reported.
"""

import torch
from torch.nn.functional import avg_pool2d

from ...fluxir_core.degrade.presets import degrade_named
from ...fluxir_core.execution.tiled_vae import LATENT
from ...fluxir_core.execution.tiles import TiledRun
from ...fluxir_core.image.padding import TOKEN
from ...fluxir_core.image.quality import quality
from ...fluxir_core.image.seams import ALONG, STRIP, seam_score
from ..diffusers_host.restorer import TILES_AT_ONCE
from ..miniature.held_out import held_out_photos
from ..miniature.scenes import build_bank

VARIANTS, STEPS = ((128, 0.0), (128, 0.25), (192, 0.25)), 4
"""(tile in pixels, least overlap), and sampling steps."""


NAIVE, OURS = VARIANTS[:2]


GATE = 1.5
"""The most that tiling may score on what it has changed, as a mean over images: set midway between NAIVE's and OURS's mean
over the training images, 1.47 on the miniature of that time, and kept."""


STRIPS, LENGTHS = (2, 4, 8), (16, 32, 64, 128)
"""Details of the score that are compared in `choices`."""


TRAINING, SEED = 12, 1
"""Scenes, and as many crops of training photos; their seed."""


AT_ONCE = 6


def training_images(count, seed):
    """`count` scenes and as many crops of training photos, (2 count, 3, 256, 256) in [0, 1]."""
    images, _ = build_bank(count, count, seed=seed)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


class Restored:
    """`clean` (B, 3, H, W) restored from its `degradation`: `whole` in one piece, and `tiled` {variant: images}."""

    def __init__(self, restorer, clean, variants=VARIANTS, degradation="noise", steps=STEPS):
        degraded = torch.stack([degrade_named(image, degradation, seed=i) for i, image in enumerate(clean)])
        groups, self.size = degraded.split(AT_ONCE), clean.shape[-2:]

        def restored(variant=None):
            run = variant and self._run(variant)
            return torch.cat([restorer.restore(group, [0] * len(group), steps, tile=run) for group in groups])

        self.clean, self.whole = clean, restored()
        self.tiled = {variant: restored(variant) for variant in variants}

    @staticmethod
    def _run(variant):
        return TiledRun(variant[0] // LATENT, TILES_AT_ONCE, variant[1])

    def grid(self, variant):
        return self._run(variant).grid(*(extent // LATENT for extent in self.size))

    def seams(self, variant, images=None, **details):
        """`seam_score` of each of `images` at the tile borders of `variant`, (B,); by default of what it has changed."""
        rows, columns = ([LATENT * place for place in axis] for axis in self.grid(variant).borders)
        images = self.tiled[variant] - self.whole if images is None else images
        return torch.tensor([seam_score(image, rows, columns, **details) for image in images])


def measure(restorer):
    """(rows of every image and variant, rows of the score's details).

    The first are {images, tile, overlap, tiles, image, psnr, tone, detail} and, in tiles, seams, seams_error and
    seams_whole: `seam_score` of what tiling has changed, of the error, and of the image in one piece at the same places.
    tone and detail part the mean squared error in squares of 8 bits: that of the means of TOKEN pixels a side, and the rest.
    Rows of tile None are the images in one piece.
    """
    training = Restored(restorer, training_images(TRAINING, SEED))
    held_out = Restored(restorer, torch.stack(list(held_out_photos().values())))
    rows = []
    for kind, restored in (("training", training), ("held-out", held_out)):
        for variant in (None, *VARIANTS):
            images = restored.tiled[variant] if variant else restored.whole
            error = 255 * (images - restored.clean)
            tone = avg_pool2d(error, TOKEN).square().mean((1, 2, 3))
            measured = {
                "psnr": quality(images, restored.clean)["psnr"],
                "tone": tone,
                "detail": error.square().mean((1, 2, 3)) - tone,
            }
            if variant:
                measured |= {
                    "seams": restored.seams(variant),
                    "seams_error": restored.seams(variant, error),
                    "seams_whole": restored.seams(variant, restored.whole),
                }
            tile, overlap = variant or (None, None)
            own = {"images": kind, "tile": tile, "overlap": overlap, "tiles": len(restored.grid(variant).tiles) if variant else 1}
            for i in range(len(images)):
                rows.append({**own, "image": i, **{name: float(values[i]) for name, values in measured.items()}})
    return rows, choices(training)


def choices(restored):
    """Rows {strip, along, naive, ours, separation} of the score's details: its means in NAIVE and OURS tiles, and how many
    of its standard deviations over the images lie between them."""
    rows = []
    for strip in STRIPS:
        for along in LENGTHS:
            naive, ours = (restored.seams(variant, strip=strip, along=along) for variant in (NAIVE, OURS))
            spread = ((naive.var() + ours.var()) / 2).sqrt()
            means = float(naive.mean()), float(ours.mean())
            rows.append(
                {
                    "strip": strip,
                    "along": along,
                    "naive": means[0],
                    "ours": means[1],
                    "separation": float((means[0] - means[1]) / spread),
                }
            )
    return rows


def table(rows, chosen):
    """Markdown of `measure`'s rows: means over the images."""
    lines = [
        f"Images of 256 pixels with noise, seed 0, {STEPS} steps. Tone and detail: root mean squared error in 8-bit "
        f"levels of the means of {TOKEN}-pixel squares, and of the rest. Seam score: 1 is none, 2 the most.",
        "",
        "| images | tile | overlap | tiles | PSNR in dB | tone | detail | seams of what tiling changed "
        "| seams of the error | seams, image in one piece |",
        "|---" * 10 + "|",
    ]
    for kind, tile, overlap in dict.fromkeys((row["images"], row["tile"], row["overlap"]) for row in rows):
        own = [row for row in rows if (row["images"], row["tile"], row["overlap"]) == (kind, tile, overlap)]

        def mean(name):
            return sum(row[name] for row in own) / len(own)

        placed = f"{tile} | {overlap:g} | {own[0]['tiles']}" if tile else "in one piece | | 1"
        seams = [f"{mean(name):.3f}" if tile else "" for name in ("seams", "seams_error", "seams_whole")]
        quality_of = f"{mean('psnr'):.2f} | {mean('tone') ** 0.5:.2f} | {mean('detail') ** 0.5:.2f}"
        lines.append(f"| {len(own)} {kind} | {placed} | {quality_of} | {' | '.join(seams)} |")
    lines += [
        "",
        "Seams of what tiling changed on the training images, by the score's details: mean at overlap "
        f"{NAIVE[1]:g} / at {OURS[1]:g} (standard deviations over the images between them), tiles of {OURS[0]}. Used: "
        f"strips of {STRIP}, {ALONG} along the border, and about midway the gate {GATE:g}.",
        "",
        "| width of a strip | " + " | ".join(f"{along} pixels along" for along in LENGTHS) + " |",
        "|---" * (len(LENGTHS) + 1) + "|",
    ]
    for strip in STRIPS:
        own = [row for row in chosen if row["strip"] == strip]
        cells = (f"{row['naive']:.2f} / {row['ours']:.2f} ({row['separation']:.1f})" for row in own)
        lines.append(f"| {strip} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
