"""What the miniature reaches on held-out photos, and the gates it must pass."""

import torch

from ...fluxir_core.degrade.presets import EVALUATION, degrade_named
from ...fluxir_core.image.quality import quality
from .held_out import held_out_photos

SEEDS = (0, 1, 2)
STRONG = ("noise", "jpeg", "low_light", "strong")
"""The degradations of EVALUATION that a restoration must improve, not only resemble."""


def evaluate(restorer, steps=20, shift=1.15, seeds=SEEDS, degradations=tuple(EVALUATION)):
    """Restores every held-out photo under every degradation from every seed.

    Returns rows {degradation, photo, method, psnr, ssim, gmsd}, means over the seeds, with the methods `degraded`,
    `ceiling` (the clean photo through the autoencoder), `restored`, `adapter off` (strength 0) and `shuffled` (the adapter
    is shown another photo's degraded picture).
    """
    photos = held_out_photos()
    names, clean = list(photos), torch.stack(list(photos.values()))
    ceiling = _through_autoencoder(restorer, clean)
    repeated = clean.repeat(len(seeds), 1, 1, 1)
    noise_seeds = [seed for seed in seeds for _ in names]
    adapter_off = restorer.restore(repeated, noise_seeds, steps, shift, strength=0.0)  # sees no degraded picture
    rows = []
    for degradation in degradations:
        degraded = torch.stack([degrade_named(photo, degradation, seed=i) for i, photo in enumerate(clean)])
        methods = {
            "degraded": degraded.repeat(len(seeds), 1, 1, 1),
            "ceiling": ceiling.repeat(len(seeds), 1, 1, 1),
            "restored": restorer.restore(degraded.repeat(len(seeds), 1, 1, 1), noise_seeds, steps, shift),
            "adapter off": adapter_off,
            "shuffled": restorer.restore(degraded.roll(1, 0).repeat(len(seeds), 1, 1, 1), noise_seeds, steps, shift),
        }
        for method, pictures in methods.items():
            scores = quality(pictures, repeated)
            for i, photo in enumerate(names):
                means = {metric: values[i :: len(names)].mean().item() for metric, values in scores.items()}
                rows.append({"degradation": degradation, "photo": photo, "method": method, **means})
    return rows


@torch.no_grad()
def _through_autoencoder(restorer, pictures):
    return restorer.vae.decode(restorer.vae.encode(pictures)).clamp(0, 1)


def mean_over_photos(rows, degradation, method, metric):
    """Mean of `metric` over the photos of one `degradation` and `method`."""
    values = [row[metric] for row in rows if row["degradation"] == degradation and row["method"] == method]
    return sum(values) / len(values)


def gates(rows):
    """The miniature's gates as {sentence: (value, passed)}: dB gained, and GMSD lost, over the held-out photos' means."""

    def gain(degradation, over):
        return mean_over_photos(rows, degradation, "restored", "psnr") - mean_over_photos(rows, degradation, over, "psnr")

    checked = {}
    for degradation in dict.fromkeys(row["degradation"] for row in rows):
        for over in ("adapter off", "shuffled"):
            value = gain(degradation, over)
            checked[f"{degradation}: restored over {over}, at least 3 dB"] = (value, value >= 3)
        if degradation in STRONG:
            value = gain(degradation, "degraded")
            checked[f"{degradation}: restored over degraded, at least 2 dB"] = (value, value >= 2)
            restored, degraded = (mean_over_photos(rows, degradation, m, "gmsd") for m in ("restored", "degraded"))
            checked[f"{degradation}: GMSD of restored below degraded"] = (restored - degraded, restored < degraded)
    return checked
