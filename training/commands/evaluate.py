"""`fluxir eval`: measures folders of restored images against the degraded ones and the originals."""

import csv
import io
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ...fluxir_core.image.chart import DOT, GRID, INK, LINE
from ...fluxir_core.image.files import SUFFIXES, read_image
from ...fluxir_core.verify.evaluation import PAPER, Evaluation, markdown
from ..outputs import check_apart, check_file, deliver, deliver_data

IMAGE, FILES = "image", "files"
"""The CSV's first columns: the name without suffix, and size and time of the files that were measured."""


ROW, LABEL, FIELD, NUMBER = 36, 190, 480, 70
"""Pixels of the plot: a row's height; the widths of its name, of its dots and of a number beside them."""


def images_in(folder):
    """{name without suffix: path} of the images in `folder`. Raises ValueError when there are none, or two of a name."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is no folder; give one with images.")
    found = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            if path.stem in found:
                raise ValueError(f"{found[path.stem].name} and {path.name} in {folder} share a name; take one of them out.")
            found[path.stem] = path
    if not found:
        raise ValueError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}); give another folder.")
    return found


def pair_images(lq, out, hq=None):
    """The folders' images by name: ({name: (restored, degraded, original or None)}, sentences on those without partner).

    Raises ValueError when no restored image has a degraded one.
    """
    lqs, outs, hqs = images_in(lq), images_in(out), images_in(hq) if hq else {}
    pairs = {name: (outs[name], lqs[name], hqs.get(name)) for name in sorted(outs.keys() & lqs.keys())}
    if not pairs:
        raise ValueError(f"no image in {out} is named as one in {lq}; name each result as its input, any suffix.")
    lonely = {
        f"{lq} has no degraded image of": outs.keys() - lqs.keys(),
        f"{out} has no restored image of": lqs.keys() - outs.keys(),
        f"{hq} has no original of": pairs.keys() - hqs.keys() if hq else (),
    }
    return pairs, [f"{text} {', '.join(sorted(names))}." for text, names in lonely.items() if names]


def fingerprint(paths):
    """Size and time of each of `paths`, `-` for None: changes when an image does."""
    stats = [path and path.stat() for path in paths]
    return " ".join(f"{stat.st_size}@{stat.st_mtime_ns}" if stat else "-" for stat in stats)


def read_rows(path):
    """{name: {column: text}} of an earlier run's CSV, {} without one. Raises ValueError for any other file."""
    if not path.exists() or not path.stat().st_size:
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, restval="")
            if (table.fieldnames or [])[:2] != [IMAGE, FILES]:
                raise ValueError
            return {row[IMAGE]: {name: text for name, text in row.items() if name} for row in table}
    except (ValueError, csv.Error):  # other text, or none at all
        raise ValueError(f"--csv: {path} is not a table of fluxir eval; name another file.") from None


def write_rows(path, rows):
    """Writes `rows` whole or not at all: an interruption leaves the file as it was."""
    columns = list(dict.fromkeys((IMAGE, FILES, *(name for row in rows.values() for name in row))))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="")
    table.writeheader()
    table.writerows(rows.values())
    deliver_data(path, text.getvalue())


def measure(pairs, evaluation, path=None, device="cpu"):
    """Measures restored images, resuming from a table.

    Rows that are in the table already, of unchanged files and with all of the evaluation's metrics, are taken as they are; rows
    of other images stay in the file.

    Args:
        pairs: {name: (restored, degraded, original or None)}, paths; see `pair_images`.
        evaluation: Evaluation.
        path: a CSV, into which every row is written when it is measured; None for no table.
        device: where the images are measured.

    Returns:
        ({name: {metric: float}}, sentences on what could not be measured or read whole).

    Raises:
        ValueError: `path` is another file than such a table.
    """
    rows = read_rows(path) if path else {}
    found, remarks = {}, []
    for name, paths in tqdm(pairs.items(), desc="measuring", disable=None):
        mark, row = fingerprint(paths), rows.pop(name, {})
        known = {column: text for column, text in row.items() if _is_known(column, text)} if row.get(FILES) == mark else {}
        expected = evaluation.names(original=paths[2] is not None)
        if not all(known.get(metric) for metric in expected):
            try:
                images = [file and read_image(file) for file in paths]
                shown = (image and image.pixels.to(device) for image in images)
                values = {metric: repr(value) for metric, value in evaluation(*shown).items()}
            except ValueError as error:
                remarks.append(f"{name} is not measured: {error}")
                continue
            remarks += (f"{file}: {remark}." for file, image in zip(paths, images) if file for remark in image.remarks)
            known |= {IMAGE: name, FILES: mark, **values}
            if path:
                write_rows(path, {**rows, name: known})
        rows[name] = known
        found[name] = {metric: float(known[metric]) for metric in expected}
    return found, remarks


def _is_known(column, text):
    """Whether a table's cell can be taken as it is: a name, or a number."""
    try:
        return column in (IMAGE, FILES) or isinstance(float(text), float)
    except ValueError:
        return False


def strip_plot(rows, evaluation):
    """A PIL image with a strip for each metric: a dot for each of `rows` [{metric: float}], and a line at their mean.

    Each strip has its own range, written at its ends; better is always to the right.
    """
    columns = {name: [row[name] for row in rows if not math.isnan(row.get(name, math.nan))] for name in evaluation.names()}
    columns = {name: values for name, values in columns.items() if values}
    sheet = Image.new("RGB", (LABEL + FIELD + 2 * NUMBER, ROW * (len(columns) + 1)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((8, 8), f"{len(rows)} images, the line is the mean; better is to the right", fill=INK, font=font)
    for number, (name, values) in enumerate(columns.items(), 1):
        worst, best, y = min(values), max(values), ROW * number + ROW // 2
        if evaluation.lower_is_better(name):
            worst, best = best, worst
        left, span = LABEL + NUMBER, best - worst
        *places, mean = (left + FIELD * ((v - worst) / span if span else 0.5) for v in (*values, sum(values) / len(values)))
        draw.line((left, y, left + FIELD, y), fill=GRID)
        draw.text((8, y - 8), name, fill=INK, font=font)
        draw.text((LABEL, y - 8), f"{worst:.4g}", fill=INK, font=font)
        draw.text((left + FIELD + 10, y - 8), f"{best:.4g}", fill=INK, font=font)
        for x in places:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=DOT)
        draw.line((mean, y - 10, mean, y + 10), fill=LINE, width=2)
    return sheet


def add_arguments(parser):
    parser.add_argument("lq", type=Path, metavar="LQ_DIR", help="the degraded images")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="the restored ones, named as those; any suffix")
    parser.add_argument("hq", type=Path, metavar="HQ_DIR", nargs="?", help="the originals, for PSNR, SSIM, GMSD and LPIPS")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row an image, and resume from the rows there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw every image's values, a strip for each metric")
    parser.add_argument(
        "--metrics",
        nargs="*",
        default=PAPER,
        metavar="NAME",
        help=f"pyiqa's metrics, measured beside those without weights (default {' '.join(PAPER)}); none: only those without",
    )


def run(arguments):
    check_apart({"--csv": arguments.csv, "--plot": arguments.plot})
    if arguments.csv:
        check_file("--csv", arguments.csv)
    if arguments.plot:
        check_file("--plot", arguments.plot, (".png",))
    pairs, remarks = pair_images(arguments.lq, arguments.out, arguments.hq)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    evaluation = Evaluation(dict.fromkeys(arguments.metrics), any(paths[2] for paths in pairs.values()), device)
    found, told = measure(pairs, evaluation, arguments.csv, device)
    print(markdown(list(found.values()), evaluation), *(f"- {remark}" for remark in (*remarks, *told)), sep="\n")
    if not found:
        raise ValueError(f"none of {len(pairs)} images could be measured; see the reasons above.")
    if arguments.plot:
        deliver(arguments.plot, strip_plot(list(found.values()), evaluation).save)
