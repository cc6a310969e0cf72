"""Compared images as one: every candidate with its rank and scores, and a search's finalists below its chart."""

import numpy as np
from PIL import Image

from .chart import LONGEST, SearchReportError, search_chart
from .montage import montage

WIDTH = 768
MOST_LINES = 40
"""Scores below an image that are written."""


def candidate_sheet(images, values, scores, winner, baseline=None):
    """Shows images in a grid, each above its rank and scores, the winner framed.

    Args:
        images: (n, 3, H, W) in [0, 1].
        values: n numbers by which they are ranked, the highest first; None for a refused image.
        scores: {verifier: n numbers}, None as in `values`; a verifier that gives several all the same is left out.
        winner: its index, or None.
        baseline: its index, or None.

    Returns:
        A PIL image, WIDTH wide.
    """
    ranks = _ranks(values)
    scores = {name: own for name, own in scores.items() if len(own) == 1 or len(set(own)) > 1}
    labels = []
    for i in range(len(images)):
        remarks = [text for text, index in (("winner", winner), ("baseline", baseline)) if index == i]
        lines = [", ".join([f"{ranks[i]}. of {len(values)}: {_number(values[i])}", *remarks])]
        labels.append("\n".join(lines + [f"{name[:LONGEST]} {_number(own[i])}" for name, own in list(scores.items())[:MOST_LINES]]))
    return montage(images, labels, () if winner is None else (winner,), WIDTH)


def draw_report(report, image=0, finalists=None):
    """`search_chart`, or with the `finalists` `search_sheet`, of a report that may be anything that JSON can be.

    Raises SearchReportError, and nothing else, where it cannot be drawn.
    """
    try:
        return search_chart(report, image) if finalists is None else search_sheet(report, finalists, image)
    except SearchReportError:
        raise
    except Exception:  # a report of another shape fails in whatever line meets it first
        raise SearchReportError(
            "the text is no search report, or was altered; connect the report of TTS Sampler (test-time search)."
        ) from None


def search_sheet(report, finalists, image=0):
    """The chart of `report` (see fluxir_core.searches.search) with the candidate sheet of one image's finalists below it.

    `finalists` (n * B, 3, H, W) in [0, 1]: everyone in the final selection for each of the B images, candidate by candidate.
    Raises SearchReportError when they are not as many as the report's, and when the batch has no such image.
    """
    chart = search_chart(report, image, (WIDTH, 432))
    batch = len(report["keys"])
    if image >= batch:
        raise SearchReportError(f"image {image} of a batch of {batch}; count from 0.")
    values = report["finalist_values"][image] if report["finalist_values"] else []
    if len(finalists) != batch * max(1, len(values)):
        raise SearchReportError(
            f"{len(finalists)} final candidates for a report of {batch * max(1, len(values))}; decode those of the same search."
        )
    own = finalists[image::batch]
    if values:
        last = len(values) - 1
        winner = report["winner"][image]
        scores = {name: rows[image] for name, rows in report["finalist_scores"].items()}
        compared = report["baseline_score"] is not None
        sheet = candidate_sheet(own, values, scores, last if winner < 0 else winner, last if compared else None)
    else:
        sheet = montage(own, ["the only one: nothing was compared"], (), WIDTH)
    both = Image.new("RGB", (WIDTH, chart.height + sheet.height))
    both.paste(chart, (0, 0))
    both.paste(sheet, (0, chart.height))
    return both


def _ranks(values):
    """1 for the highest; equal values share a rank, None is behind all others."""
    known = [-np.inf if value is None else value for value in values]
    return [1 + sum(other > own for other in known) for own in known]


def _number(value):
    return "refused" if value is None else f"{value + 0.0:.3g}"  # no "-0"
