"""`fluxir results tts`: every search preset side by side, on an exact mixture and on the miniature's held-out photos."""

import logging
import time

import torch

from ...fluxir_core.degrade.presets import degrade_named
from ...fluxir_core.flow.rectified_flow import euler, flux_sigmas
from ...fluxir_core.image.quality import quality
from ...fluxir_core.searches.presets import PRESETS
from ...fluxir_core.searches.search import estimate_cost, search
from ...fluxir_core.searches.task import Task
from ...fluxir_core.verify.ensemble import DefaultEnsemble
from ...fluxir_core.verify.fidelity import downsampled_psnr
from ..miniature.held_out import held_out_photos
from .gaussian_mixture import GaussianMixture

STEPS, SHIFT = 25, 1.15


def on_gaussian_mixture(dims, samples=400):
    """Rows {preset, nfe, verifications, reward, held_out, log_density}, means over `samples`; log_density is the change.

    25 uniform steps; reward is what the search sees, held_out a projection near it that no search sees.
    """
    mixture = GaussianMixture(dims)
    noise = torch.randn(samples, dims, generator=torch.Generator().manual_seed(1))
    sigmas = flux_sigmas(STEPS, 0)
    task = Task(mixture.velocity, lambda x: x, lambda x: {"reward": mixture.reward(x)})
    baseline = euler(mixture.velocity, noise, sigmas)
    found = {"baseline": (baseline, {"nfe": STEPS, "verifications": 0})}
    for name, algorithm in PRESETS.items():
        result = search(task, noise, sigmas, algorithm)
        found[name] = result.latents, result.report
    return [
        {
            "preset": name,
            "nfe": report["nfe"],
            "verifications": report["verifications"],
            "reward": mixture.reward(x).mean().item(),
            "held_out": mixture.held_out(x).mean().item(),
            "log_density": (mixture.log_density(x) - mixture.log_density(baseline)).mean().item(),
        }
        for name, (x, report) in found.items()
    ]


def on_miniature(restorer, degradations, presets=tuple(PRESETS), seed=0):
    """Restores the held-out photos by every preset, in STEPS steps on FLUX's sigmas.

    Args:
        restorer: Restorer.
        degradations: names, as for `degrade_named`.
        presets: names of PRESETS.
        seed: of the restorations.

    Returns:
        Rows {preset, degradation, photo, nfe, verifications, psnr, ssim, gmsd, near, reward, worse, seconds, overhead}. near is
        the exposure-matched PSNR to the degraded image, in dB; reward the ensemble's value in one cohort of all presets' images,
        over the baseline's; worse whether the ensemble, comparing the two alone, values the image below the baseline; overhead
        the share of the seconds outside model calls, decodes and verifiers.
    """
    rows = []
    for degradation in degradations:
        for i, (photo, clean) in enumerate(held_out_photos().items()):
            degraded = degrade_named(clean, degradation, seed=i)[None]
            found = {name: _restored(restorer, degraded, name, seed) for name in ("baseline", *presets)}
            images = torch.cat([image for image, _ in found.values()])
            ensemble = DefaultEnsemble()
            measured = ensemble.measure(images, degraded)
            together = ensemble.combine(measured)
            full, near = quality(images, clean.expand_as(images)), downsampled_psnr(images, degraded)
            for k, (name, (_, costs)) in enumerate(found.items()):
                alone = ensemble.combine({score: values[[0, k]] for score, values in measured.items()})
                rows.append(
                    {
                        "preset": name,
                        "degradation": degradation,
                        "photo": photo,
                        **costs,
                        **{measure: values[k].item() for measure, values in full.items()},
                        "near": near[k].item(),
                        "reward": (together[k] - together[0]).item(),
                        "worse": bool(alone[1] < alone[0]),
                    }
                )
            logging.info("%s %s: %s", degradation, photo, {row["preset"]: round(row["psnr"], 2) for row in rows[-len(found) :]})
    return rows


def _restored(restorer, degraded, preset, seed):
    """(image, {nfe, verifications, seconds, overhead}) of one preset, or of the baseline."""
    clock, started = _Clock(), time.perf_counter()
    if preset == "baseline":
        image, report = restorer.restore(degraded, [seed], STEPS, SHIFT), {"nfe": STEPS, "verifications": 0}
    else:
        with clock.watching(restorer):
            image, report = restorer.search(degraded, [seed], PRESETS[preset], clock.verifier(DefaultEnsemble()), STEPS, SHIFT)
    seconds = time.perf_counter() - started
    overhead = 1 - clock.seconds / seconds if clock.seconds else 0.0
    return image, {"nfe": report["nfe"], "verifications": report["verifications"], "seconds": seconds, "overhead": overhead}


class _Clock:
    """Adds up the seconds inside model calls, decodes and verifiers."""

    def __init__(self):
        self.seconds = 0.0

    def timed(self, function):
        def call(*arguments):
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - started

        return call

    def watching(self, restorer):
        return _Replaced((restorer.host, "velocity"), (restorer.vae, "decode"), (restorer.vae, "encode"), by=self.timed)

    def verifier(self, ensemble):
        ensemble.measure = self.timed(ensemble.measure)
        return ensemble


class _Replaced:
    """Context manager: attributes of objects replaced by `by(attribute)`, and put back."""

    def __init__(self, *places, by):
        self.places, self.by = places, by

    def __enter__(self):
        for owner, name in self.places:
            setattr(owner, name, self.by(getattr(owner, name)))

    def __exit__(self, *_):
        for owner, name in self.places:
            delattr(owner, name)


def table(on, rows):
    """Markdown of `on_gaussian_mixture` rows {dims: rows} and of `on_miniature` rows."""
    lines = [f"On an exact Gaussian mixture, {STEPS} uniform steps: reward / held-out reward / change of log-density.", ""]
    lines += [
        "| | NFE | verifications | " + " | ".join(f"{dims} dimensions" for dims in on) + " |",
        "|---" * (3 + len(on)) + "|",
    ]
    for columns in zip(*on.values()):
        cells = (f"{row['reward']:.2f} / {row['held_out']:.2f} / {row['log_density']:+.1f}" for row in columns)
        costs = max(row["nfe"] for row in columns), max(row["verifications"] for row in columns)
        lines.append(f"| {columns[0]['preset']} | {costs[0]} | {costs[1]} | " + " | ".join(cells) + " |")

    degradations = list(dict.fromkeys(row["degradation"] for row in rows))
    photos = len({row["photo"] for row in rows})
    lines += [
        "",
        f"On the miniature, {photos} held-out crops of 256 pixels, seed 0, {STEPS} steps on FLUX's sigmas: PSNR in dB / SSIM / "
        "GMSD against the original, which no search sees; the ensemble's reward over the baseline's; closeness to the degraded "
        "image in dB.",
        "",
        "| | NFE | verifications | "
        + " | ".join(f"{d} | reward | near" for d in degradations)
        + " | worse than the baseline | seconds over the baseline's | overhead |",
        "|---" * (6 + 3 * len(degradations)) + "|",
    ]
    baseline_seconds = _mean([row for row in rows if row["preset"] == "baseline"], "seconds")
    for preset in dict.fromkeys(row["preset"] for row in rows):
        own = [row for row in rows if row["preset"] == preset]
        cells = []
        for degradation in degradations:
            here = [row for row in own if row["degradation"] == degradation]
            psnr, ssim, gmsd, reward, near = (_mean(here, name) for name in ("psnr", "ssim", "gmsd", "reward", "near"))
            cells.append(f"{psnr:.2f} / {ssim:.3f} / {gmsd:.3f} | {reward:+.2f} | {near:.1f}")
        lines.append(
            f"| {preset} | {_mean(own, 'nfe'):.0f} | {_mean(own, 'verifications'):.0f} | "
            + " | ".join(cells)
            + f" | {sum(row['worse'] for row in own)} of {len(own)} | {_mean(own, 'seconds') / baseline_seconds:.1f} | "
            f"{_mean(own, 'overhead'):.1%} |"
        )
    planned = ", ".join(
        f"{name} {estimate_cost(PRESETS[name], flux_sigmas(STEPS, 0))['nfe']}" for name in ("quick", "balanced", "paper")
    )
    lines += ["", f"Planned NFE on {STEPS} uniform steps: {planned}."]
    return "\n".join(lines)


def _mean(rows, name):
    return sum(row[name] for row in rows) / len(rows)
