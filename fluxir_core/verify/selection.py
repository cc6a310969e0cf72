"""FluxGen's selection: images that no metric puts among its worst (arXiv 2504.15159, section 3.1)."""

import csv
import io
import math
from typing import NamedTuple

import numpy as np

from .niqe import NIQE
from .pyiqa_metric import PyIQAMetric
from .statistics import CoherentGradient, SpectralSlope

PAPER = ("clipiqa+_vitL14_512", "maniqa-pipal", "musiq")
"""The paper's metrics, by pyiqa's names."""
OWN = {metric.name: metric for metric in (NIQE, CoherentGradient, SpectralSlope)}
KEEP = 0.95
FILE, KEPT, DROPPED_BY = "file", "kept", "dropped by"
VETO = "veto_"
"""Begins the names of an ensemble's vetoes, which score 0 or, where they refuse, -1."""


class Selection(NamedTuple):
    """`limits` {metric: the lowest score that is kept}, and for each image the metrics that drop it: none keeps it."""

    limits: dict
    dropped_by: list


def metric_named(name, device="cpu"):
    """The verifier `name`: one of OWN, which need no weights, or any metric of pyiqa.

    Raises ValueError, in one sentence, when pyiqa, its weights or the metric are missing.
    """
    if name in OWN:
        return OWN[name]()
    try:
        return PyIQAMetric(name, device)
    except (ImportError, ValueError) as error:
        sentence = str(error).removeprefix("PyIQAMetric: ").rstrip(".")
        raise ValueError(f"the metric {name} is missing: {sentence}; {', '.join(OWN)} need nothing.") from None


def select(scores, keep=KEEP):
    """Which images to keep by `scores` {metric: [number of each image]}, higher is better, and `keep` in (0, 1].

    An image stays when each of its scores is at or above that metric's percentile 100 (1 - keep) among all images,
    with linear interpolation. One without a number (NaN or infinity) is dropped; a metric that has none for any is left out.
    Vetoes of an ensemble drop what they refuse. Raises ValueError when no metric has a number.
    """
    columns = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    if not columns:
        raise ValueError("no metric has a number for any of the images; choose other metrics or images.")
    share = round(100 * (1 - keep), 9)  # a limit that falls on a score must not be above it
    limits = {
        name: 0.0 if name.startswith(VETO) else float(np.percentile(values[np.isfinite(values)], share))
        for name, values in columns.items()
    }
    rows = zip(*columns.values())
    dropped_by = [
        [name for name, value in zip(columns, row) if not (math.isfinite(value) and value >= limits[name])] for row in rows
    ]
    return Selection(limits, dropped_by)


def reasons(row, selection, names):
    """What drops an image of scores `row` {metric: number}, by the metrics `names`: "niqe -9.1 < -7.4, ..."."""
    return ", ".join(name if name.startswith(VETO) else f"{name} {row[name]:.4g} < {selection.limits[name]:.4g}" for name in names)


def table(files, scores, selection, unreadable=()):
    """Makes a CSV table with a row for each file: its scores, whether it is kept, and which metrics drop it.

    Args:
        files: their names.
        scores: {metric: [number of each file]}.
        selection: the Selection of these scores.
        unreadable: [(file, reason)] of further rows, dropped for the reason.

    Returns:
        The table's text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([FILE, *scores, KEPT, DROPPED_BY])
    for file, row, dropped_by in zip(files, zip(*scores.values()), selection.dropped_by):
        writer.writerow([file, *(repr(float(value)) for value in row), "no" if dropped_by else "yes", " ".join(dropped_by)])
    for file, reason in unreadable:
        writer.writerow([file, *[""] * len(scores), "no", reason])
    return text.getvalue()


def read_table(path):
    """{file: {metric: number}} of the kept ones in a table of `table`. Raises ValueError on any other file."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            if not {FILE, KEPT} <= {*(rows.fieldnames or ())}:
                raise KeyError
            names = [name for name in rows.fieldnames or () if name not in (FILE, KEPT, DROPPED_BY)]
            return {row[FILE]: {name: float(row[name]) for name in names} for row in rows if row[KEPT] == "yes"}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise ValueError(f"{path} is no table of fluxir fluxgen select; give its selection.csv.") from None
