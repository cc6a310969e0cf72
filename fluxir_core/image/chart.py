"""The search report as a chart: candidates' scores by model calls, the line of the chosen, and that of a verifier not searched on."""

import statistics

from PIL import Image, ImageDraw, ImageFont

MARGIN, INK, GRID, DOT, LINE, HELD_OUT = 48, (40, 40, 40), (225, 225, 225), (150, 170, 210), (200, 70, 40), (40, 140, 90)
NODES = {
    "EvolutionarySearch": "Evolutionary Search",
    "StepwiseSearch": "Stepwise Search",
    "SMC": "Particle Search, resampling",
    "Halving": "Particle Search, halving",
}


LONGEST, MOST_REMARKS, MOST_SCORES = 100, 8, 100_000
"""Characters of a name or a remark that are drawn, lines of remarks, and scores of one image: an altered report may hold more."""


class SearchReportError(ValueError):
    """A search report that is none, or was altered, or does not fit what it is asked for; the reason, for an artist."""


def search_chart(report, image=0, size=(768, 432)):
    """A PIL image of the rounds of `report` (see fluxir_core.searches.search) for one image of the batch.

    The score is the mean over the verifiers of z-scores over all rounds, so that rounds can be compared; dots are
    candidates, the line joins the best of those chosen. A line in another color, on a scale of its own, is what the first
    held-out verifier says of them; both gains over the baseline stand above. Remarks of the report stand below.
    Raises SearchReportError when the batch has no such image, and any error of Python's where the report was altered (see
    `candidates.draw_report`).
    """
    rounds = [_round(entry, image) for entry in (*report["log"], *_final_selection(report))]
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text(
        (MARGIN, 8),
        f"{_name(report)}: {report['nfe']} model calls, {report['verifications']} images judged",
        fill=INK,
        font=font,
    )
    scores = _scores(rounds)
    if not scores:
        draw.text((MARGIN, size[1] // 2), "nothing was selected: this is the baseline", fill=INK, font=font)
        _write_remarks(draw, report, size, font)
        return sheet
    values = [value for row in scores for value in row]
    low, high, last = min(values), max(values), max(report["nfe"], 1)
    span = high - low or 1.0

    def place(nfe, value):
        x = MARGIN + (size[0] - 2 * MARGIN) * nfe / last
        return x, size[1] - MARGIN - (size[1] - 2 * MARGIN) * (value - low) / span

    for share in (0, 0.25, 0.5, 0.75, 1):
        level = place(0, low + share * span)[1]
        draw.line((MARGIN, level, size[0] - MARGIN, level), fill=GRID)
        draw.text((6, level - 7), f"{low + share * span:.1f}", fill=INK, font=font)
    line = []
    for entry, row in zip(rounds, scores):
        for value in row:
            x, y = place(entry["nfe"], value)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=DOT)
        line.append(place(entry["nfe"], max(row[i] for i in entry["chosen"])))
    draw.line(line, fill=LINE, width=2)
    for x, y in line:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), outline=LINE, width=2)
    _draw_held_out(draw, report, rounds, [x for x, _ in line], size, font)
    _write_remarks(draw, report, size, font)
    if report["finalist_scores"]:
        draw.text((size[0] - MARGIN - 80, 24), "final selection", fill=INK, font=font)
    draw.text((MARGIN, size[1] - 20), "model calls", fill=INK, font=font)
    draw.text((size[0] - 8, MARGIN - 18), "score, higher is better", fill=INK, font=font, anchor="ra")
    draw.text((size[0] - MARGIN - 30, size[1] - 36), str(report["nfe"]), fill=INK, font=font)
    draw.text((MARGIN, size[1] - 36), "0", fill=INK, font=font)
    return sheet


def _name(report):
    """The search as the artist chose it: its preset, or its node."""
    kind = report["algorithm"]["type"]
    return str(report.get("preset") or NODES.get(kind, kind))[:LONGEST]


def _draw_held_out(draw, report, rounds, columns, size, font):
    """The held-out verifier's line through `columns`, from its lowest to its highest score, and both gains."""
    name = next((name for entry in rounds for name in entry["held_out"]), None)
    if name is None:
        return
    known = [(x, value) for x, entry in zip(columns, rounds) if (value := entry["held_out"].get(name)) is not None]
    low, high = (chosen(value for _, value in known) for chosen in (min, max)) if known else (0, 0)
    height = size[1] - 2 * MARGIN
    points = [(x, size[1] - MARGIN - height * ((value - low) / (high - low) if high > low else 0.5)) for x, value in known]
    draw.line(points, fill=HELD_OUT, width=2)
    gain, held_out = rounds[-1]["gain"], rounds[-1]["held_out_gain"].get(name)
    draw.text((MARGIN, 24), f"searched{_signed(gain)}", fill=LINE, font=font)
    draw.text((MARGIN + 130, 24), f"not searched on: {name[:LONGEST]}{_signed(held_out)} (own scale)", fill=HELD_OUT, font=font)


def _signed(gain):
    return "" if gain is None else f" {gain:+.2f}"


def _write_remarks(draw, report, size, font):
    for line, remark in enumerate(report.get("remarks", ())[:MOST_REMARKS]):
        draw.text((MARGIN, size[1] // 2 + 20 * (line + 1)), remark[:LONGEST], fill=INK, font=font)


def _round(entry, image):
    if not 0 <= image < len(entry["chosen"]):
        raise SearchReportError(f"image {image} of a batch of {len(entry['chosen'])}; count from 0.")
    return {
        "nfe": entry["nfe"],
        "chosen": entry["chosen"][image],
        "scores": {name: rows[image] for name, rows in entry["scores"].items()},
        "held_out": {name: rows[image][0] for name, rows in entry.get("held_out", {}).items()},
        "gain": (entry.get("gain") or {image: None})[image],
        "held_out_gain": {name: gains[image] for name, gains in entry.get("held_out_gain", {}).items() if gains},
    }


def _final_selection(report):
    """The final selection in the form of a round, if one was held; a winner of -1 is the last of its candidates."""
    if report["finalist_scores"]:
        chosen = [[winner] for winner in report["winner"]]
        yield {
            "nfe": report["nfe"],
            "chosen": chosen,
            "scores": report["finalist_scores"],
            "held_out": {name: [[value] for value in found["score"]] for name, found in report.get("held_out", {}).items()},
            "gain": report.get("gain"),
            "held_out_gain": {name: found["gain"] for name, found in report.get("held_out", {}).items()},
        }


def _scores(rounds):
    """[[score of each candidate] of each round]; a candidate without a usable score has the lowest."""
    if not rounds or not rounds[0]["scores"]:
        return []
    if sum(len(own) for entry in rounds for own in entry["scores"].values()) > MOST_SCORES:
        raise SearchReportError("the report holds more scores than any search makes.")
    total = [[0.0] * len(next(iter(entry["scores"].values()))) for entry in rounds]
    for name in rounds[0]["scores"]:
        known = [value for entry in rounds for value in entry["scores"].get(name, ()) if value is not None]
        if len(known) < 2 or not (std := statistics.pstdev(known)):
            continue
        mean, worst = statistics.fmean(known), min(known)
        for row, entry in zip(total, rounds):
            for i, value in enumerate(entry["scores"].get(name, ())):
                row[i] += ((worst if value is None else value) - mean) / std / len(rounds[0]["scores"])
    return total
