"""How good a restoration is: what can be measured of it here, and why the rest cannot."""

import importlib.util
import math

import torch

from ..image.quality import quality
from .drift import Drift
from .fidelity import downsampled_psnr
from .niqe import NIQE
from .pretrained import VerifierFileError
from .pyiqa_metric import PyIQAMetric
from .statistics import CoherentGradient, SpectralSlope

PAPER = ("lpips", "maniqa", "clipiqa+", "musiq")
"""The papers' measures beyond PSNR and SSIM, by pyiqa's names."""
FULL_REFERENCE = ("psnr", "ssim", "gmsd")
OWN = (*FULL_REFERENCE, "niqe", "coherent_gradient", "spectral_slope", "closeness", "drift")
AGAINST_DEGRADED = ("closeness", "drift")
SMALLEST = 32
"""Pixels a side that SSIM and GMSD need."""


class Evaluation:
    """Measures restored images; made once, called for each image.

    In any case, without weights: `psnr` (dB), `ssim`, `gmsd` against the original; `niqe`; `coherent_gradient`, sharpness;
    `spectral_slope`, the distance from that of undistorted photos; `closeness`, the PSNR in dB to the degraded image at a
    quarter of the size, exposure matched; `drift`, how many pixels the image has slid against the degraded one, see
    fluxir_core.image.align. And pyiqa's `metrics` by name, from weights that are already on disk.

    Values keep their metric's published sign: see `lower_is_better`. `skipped` is {name: why it cannot be measured}.
    """

    def __init__(self, metrics=PAPER, originals=True, device="cpu"):
        """`originals` False: no image has one, and metrics that need it are skipped.

        Raises ValueError for a name that pyiqa does not know or that is measured in any case.
        """
        self.metrics, self.skipped = {}, {}
        if originals and importlib.util.find_spec("piq") is None:
            self.skipped |= dict.fromkeys(FULL_REFERENCE, "the library piq is missing; pip install piq")
        for name in metrics:
            if name in OWN:
                raise ValueError(f"{name} is measured in any case; name only further metrics of pyiqa, such as lpips.")
            try:
                self.metrics[name] = PyIQAMetric(name, device)
            except (ImportError, VerifierFileError) as error:
                self.skipped[name] = str(error).removeprefix("PyIQAMetric: ").rstrip(".")
        if not originals:
            for name in [name for name in self.metrics if self._compares(name)]:
                del self.metrics[name]
                self.skipped[name] = "it compares with the original, and none was given"

    def _compares(self, name):
        return name in FULL_REFERENCE or (name in self.metrics and self.metrics[name].module.metric_mode == "FR")

    def names(self, degraded=True, original=True):
        """What is measured of an image, in order; without `closeness` and `drift`, or the full-reference ones, where a partner
        lacks."""
        found = [name for name in (*OWN, *self.metrics) if name not in self.skipped]
        return [name for name in found if (original or not self._compares(name)) and (degraded or name not in AGAINST_DEGRADED)]

    def lower_is_better(self, name):
        if name in self.metrics:
            return bool(self.metrics[name].module.lower_better)
        return name in ("gmsd", "niqe", "spectral_slope", "drift")

    @torch.no_grad()
    def __call__(self, restored, degraded=None, original=None):
        """{name: float} of one `restored` (3, H, W) in [0, 1], at least 32 pixels a side; NaN where there is no number.

        `degraded` (3, h, w) may have another size of about the same shape; `original` must have the restored one's size.
        Raises ValueError, one sentence, for images that do not belong together, are too small or hold NaN or infinity.
        """
        _check(restored, degraded, original)
        image, values = restored[None], {}
        if original is not None and not self.skipped.keys() & set(FULL_REFERENCE):
            values |= quality(image, original[None])
        values |= {metric.name: metric(image) for metric in (NIQE(), CoherentGradient(), SpectralSlope())}
        if degraded is not None:
            values["closeness"] = downsampled_psnr(image, degraded)
            values["drift"] = Drift()(image, degraded)
        for name in self.names(degraded is not None, original is not None):
            if name in self.metrics:
                values[name] = self.metrics[name](image, original)
        turned = {"niqe", "spectral_slope", "drift"} | {name for name in self.metrics if self.lower_is_better(name)}
        numbers = {name: -float(value) if name in turned else float(value) for name, value in values.items()}
        return {name: number if math.isfinite(number) else math.nan for name, number in numbers.items()}


def _check(restored, degraded, original):
    for which, image in {"restored": restored, "degraded": degraded, "original": original}.items():
        if image is None:
            continue
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"the {which} image has the shape {tuple(image.shape)}; give (3, H, W).")
        if not image.isfinite().all():
            raise ValueError(f"the {which} image holds NaN or infinity; give one without.")
    if min(restored.shape[1:]) < SMALLEST:
        raise ValueError(f"the restored image has {_size(restored)} pixels; give at least {SMALLEST} a side.")
    if original is not None and original.shape != restored.shape:
        raise ValueError(
            f"the original has {_size(original)} pixels and the restored image {_size(restored)}; bring them to one size."
        )
    if degraded is not None:
        ratio = restored.shape[1] * degraded.shape[2] / (restored.shape[2] * degraded.shape[1])
        if not 1 / 1.1 < ratio < 1.1:  # a VAE may have cropped up to 15 pixels
            raise ValueError(
                f"the restored image has {_size(restored)} pixels and the degraded one {_size(degraded)}, another shape; "
                "give images of the same scene."
            )


def _size(image):
    return f"{image.shape[2]} x {image.shape[1]}"


def markdown(rows, evaluation):
    """A Markdown table of `rows`, {name: float} of each image: a metric's value or, of several images, mean and range.

    An arrow says which way is better; values that are NaN are left out. What is skipped, and why, follows as a list.
    """
    several = len(rows) > 1
    lines = (
        ["| metric | mean | lowest | highest | images |", "|---|---|---|---|---|"]
        if several
        else ["| metric | value |", "|---|---|"]
    )
    for name in evaluation.names():
        values = [row[name] for row in rows if name in row and not math.isnan(row[name])]
        if not values:
            continue
        cells = [sum(values) / len(values), min(values), max(values)] if several else values
        shown = " | ".join(f"{value:.4g}" for value in cells) + (f" | {len(values)}" if several else "")
        lines.append(f"| {name} {'↓' if evaluation.lower_is_better(name) else '↑'} | {shown} |")
    reasons = {}
    for name, reason in evaluation.skipped.items():
        reasons.setdefault(reason, []).append(name)
    skipped = [f"- {', '.join(names)} skipped: {reason}" for reason, names in reasons.items()]
    return "\n".join([*lines, *(["", *skipped] if skipped else [])])
