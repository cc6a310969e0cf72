"""What the miniature reaches on held-out photos, beside its controls, and the gates it must pass."""

import torch
from torch.nn.functional import avg_pool2d

from ...fluxir_core.degrade.presets import EVALUATION, OTHER_STRENGTHS, degrade_named
from ...fluxir_core.image.lost_detail import give_back_detail
from ...fluxir_core.image.quality import quality
from .held_out import held_out_photos
from .peers import make_peer

SEEDS = (0, 1, 2)
PATCH = 16
"""Pixels a side of the squares whose means are the tone of an image; the rest is its detail."""

HEAVY = ("noise", "noise15", "noise50", "low_light", "strong")
MILD = ("jpeg", "jpeg10", "jpeg20", "jpeg60", "sr4")
"""Degradations that a restoration must undo, and those that are milder than the loss of a small autoencoder."""

ALONE = "autoencoder alone"
"""The degraded image encoded and decoded: what the autoencoder does without any restoring."""


def evaluate(restorer, steps=20, shift=1.15, seeds=SEEDS, degradations=(*EVALUATION, *OTHER_STRENGTHS), photos=None, controls=True):
    """Restores every held-out photo under every degradation from every seed.

    Args:
        restorer: a Restorer of the miniature.
        steps, shift: of the sampling.
        seeds: each photo is restored from every one of them.
        degradations: names of EVALUATION and OTHER_STRENGTHS.
        photos: the folder of the fetched photos; without it the six crops that packages bring are measured.
        controls: whether the controls are measured too, or the restored images alone.

    Returns:
        Rows {degradation, photo, method, seed, psnr, ssim, gmsd, tone, detail}, the last two root mean squared errors in 8-bit
        levels: of the means of squares of PATCH pixels, and of the rest. Methods: `restored`, `with give-back` (strength 1), and
        the controls `degraded`, `autoencoder alone`, `peer` (peers.make_peer), `one step` (of the same weights), `adapter off`
        (strength 0), `shuffled` (the adapter is shown another photo's degraded image) and `ceiling` (the clean photo through
        the autoencoder). What has no seed has a row for seed None alone.
    """
    held_out = held_out_photos(photos)
    names, clean = list(held_out), torch.stack(list(held_out.values()))
    rows, adapter_off = [], {}

    def restored(degraded, seed, steps=steps, **options):
        return restorer.restore(degraded, [seed] * len(degraded), steps, shift, **options)

    for degradation in degradations:
        degraded = torch.stack([degrade_named(photo, degradation, seed=i) for i, photo in enumerate(clean)])
        alone = _through_autoencoder(restorer, degraded)
        found = {}
        for seed in seeds:
            images = restored(degraded, seed)
            found |= {("restored", seed): images, ("with give-back", seed): give_back_detail(images, degraded, alone)}
            if controls:
                found["one step", seed] = restored(degraded, seed, steps=1)
                if seed not in adapter_off:  # it sees no degraded image
                    adapter_off[seed] = restored(degraded, seed, strength=0.0)
                found["adapter off", seed] = adapter_off[seed]
                found["shuffled", seed] = restored(degraded.roll(1, 0), seed)
        if controls:
            _, peer = make_peer(degradation, photos)
            found |= {
                ("degraded", None): degraded,
                (ALONE, None): alone,
                ("peer", None): torch.stack([peer(image) for image in degraded]),
                ("ceiling", None): _through_autoencoder(restorer, clean),
            }
        for (method, seed), images in found.items():
            measured = {**quality(images, clean), **_tone_and_detail(images, clean)}
            for i, photo in enumerate(names):
                scores = {metric: values[i].item() for metric, values in measured.items()}
                rows.append({"degradation": degradation, "photo": photo, "method": method, "seed": seed, **scores})
    return rows


def _tone_and_detail(images, clean):
    error = 255 * (images - clean)
    tone = avg_pool2d(error, PATCH).square().mean((1, 2, 3))
    return {"tone": tone.sqrt(), "detail": (error.square().mean((1, 2, 3)) - tone).clamp(min=0).sqrt()}


@torch.no_grad()
def _through_autoencoder(restorer, images):
    return restorer.vae.decode(restorer.vae.encode(images)).clamp(0, 1)


def mean_over_photos(rows, degradation, method, metric):
    """Means a metric over the photos and seeds.

    Args:
        rows: of `evaluate`.
        degradation, method, metric: names in the rows.

    Returns:
        The mean, in the metric's unit.
    """
    values = [row[metric] for row in rows if row["degradation"] == degradation and row["method"] == method]
    return sum(values) / len(values)


def spread_over_seeds(rows, degradation, method="restored"):
    """How far the seeds' mean PSNRs lie apart, in dB."""
    own = [row for row in rows if row["degradation"] == degradation and row["method"] == method]
    means = [mean_over_photos([row for row in own if row["seed"] == seed], degradation, method, "psnr") for seed in _seeds(own)]
    return max(means) - min(means)


def _seeds(rows):
    return list(dict.fromkeys(row["seed"] for row in rows))


def gates(rows):
    """The miniature's gates on `rows` of `evaluate` as {sentence: (value, passed)}; those that `rows` can answer."""
    checked = {}

    def over(degradation, other, metric, method="restored"):
        return mean_over_photos(rows, degradation, method, metric) - mean_over_photos(rows, degradation, other, metric)

    def gate(sentence, value, passed):
        checked[sentence] = (value, passed)

    for degradation in dict.fromkeys(row["degradation"] for row in rows):
        for other in ("adapter off", "shuffled"):
            value = over(degradation, other, "psnr")
            gate(f"{degradation}: restored over {other}, at least 3 dB", value, value >= 3)
        psnr, ssim, gmsd = (over(degradation, ALONE, metric) for metric in ("psnr", "ssim", "gmsd"))
        if degradation in HEAVY:
            gate(f"{degradation}: restored over the autoencoder alone, at least 1 dB", psnr, psnr >= 1)
            gate(f"{degradation}: GMSD of restored below the autoencoder's alone", gmsd, gmsd < 0)
        if degradation in MILD:
            gate(f"{degradation}: restored over the autoencoder alone, at least -0.3 dB", psnr, psnr >= -0.3)
            gate(f"{degradation}: SSIM of restored not below the autoencoder's alone", ssim, ssim >= 0)
            gate(f"{degradation}: GMSD of restored not above the autoencoder's alone", gmsd, gmsd <= 0)
            psnr, gmsd = (over(degradation, "degraded", metric, "with give-back") for metric in ("psnr", "gmsd"))
            gate(f"{degradation}: with give-back over degraded, at least 0 dB", psnr, psnr >= 0)
            gate(f"{degradation}: GMSD with give-back below degraded", gmsd, gmsd < 0)
        if degradation.startswith("noise"):
            ssim, gmsd = (over(degradation, "peer", metric) for metric in ("ssim", "gmsd"))
            gate(f"{degradation}: SSIM of restored above OpenCV's", ssim, ssim > 0)
            gate(f"{degradation}: GMSD of restored below OpenCV's", gmsd, gmsd < 0)
        if len(_seeds([row for row in rows if row["method"] == "restored"])) > 1:
            value = spread_over_seeds(rows, degradation)
            gate(f"{degradation}: seeds within 0.4 dB", value, value < 0.4)
    return checked
