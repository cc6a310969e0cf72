"""What tiles do to a restoration: visible seams and quality, by tile size and overlap, against the picture in one piece."""

import torch

from ..fluxir_core.degrade import degrade_named
from ..fluxir_core.flow.tiles import TiledRun
from ..fluxir_core.image import quality
from ..fluxir_core.image.seams import seam_score
from .miniature.held_out import held_out_photos
from .model_folder import LATENT
from .restore import TILES_AT_ONCE

VARIANTS, STEPS = ((128, 0.0), (128, 0.25), (192, 0.25)), 4
"""(tile in pixels, least overlap), and sampling steps."""


def measure(restorer, degradation="noise"):
    """Rows {tile, overlap, tiles, photo, psnr, seams, seams_whole, seams_change} of every held-out photo restored in tiles.

    seams: `seam_score` of the restored picture; seams_whole: of the one restored in one piece, at the same places;
    seams_change: of what tiling has changed. The first rows, of tile None, are the pictures in one piece.
    """
    photos = held_out_photos()
    clean = torch.stack(list(photos.values()))
    degraded = torch.stack([degrade_named(photo, degradation, seed=i) for i, photo in enumerate(clean)])
    seeds = [0] * len(clean)
    whole = restorer.restore(degraded, seeds, STEPS)
    rows = [
        {"tile": None, "overlap": None, "tiles": 1, "photo": photo, "psnr": float(psnr)}
        for photo, psnr in zip(photos, quality(whole, clean)["psnr"])
    ]
    for tile, overlap in VARIANTS:
        run = TiledRun(tile // LATENT, TILES_AT_ONCE, overlap)
        restored = restorer.restore(degraded, seeds, STEPS, tile=run)
        grid = run.grid(*(extent // LATENT for extent in clean.shape[-2:]))
        places = [[LATENT * place for place in axis] for axis in grid.borders]
        for i, (photo, psnr) in enumerate(zip(photos, quality(restored, clean)["psnr"])):
            scores = (restored[i], whole[i], restored[i] - whole[i])
            seams, seams_whole, seams_change = (seam_score(picture, *places) for picture in scores)
            rows.append({
                "tile": tile, "overlap": overlap, "tiles": len(grid.tiles), "photo": photo, "psnr": float(psnr),
                "seams": seams, "seams_whole": seams_whole, "seams_change": seams_change,
            })  # fmt: skip
    return rows


def table(rows):
    """Markdown of `measure`'s rows, means over the photos."""
    lines = [
        f"{len({row['photo'] for row in rows})} held-out photos of 256 pixels with noise, seed 0, {STEPS} steps. Seam score: "
        "1 is none, 2 the most.", "",
        "| tile | overlap | tiles | PSNR in dB | seams | seams, picture in one piece | seams of what tiling changed |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for tile, overlap in dict.fromkeys((row["tile"], row["overlap"]) for row in rows):
        own = [row for row in rows if (row["tile"], row["overlap"]) == (tile, overlap)]

        def mean(name):
            return sum(row[name] for row in own) / len(own)

        if tile is None:
            lines.append(f"| in one piece | | 1 | {mean('psnr'):.2f} | | | |")
        else:
            cells = " | ".join(f"{mean(name):.3f}" for name in ("seams", "seams_whole", "seams_change"))
            lines.append(f"| {tile} | {overlap:g} | {own[0]['tiles']} | {mean('psnr'):.2f} | {cells} |")
    return "\n".join(lines)
