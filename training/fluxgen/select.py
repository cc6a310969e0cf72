"""`fluxir fluxgen select`: keeps the images that no metric puts among its worst (arXiv 2504.15159, section 3.1).

Scores are written image by image, each part of the source by its process. Whichever process sees all scores there sets
the limits and writes the table: nobody waits for anybody, and the command, run again, finishes what is missing.
"""

import json
import zlib
from pathlib import Path

from tqdm import tqdm

from ...fluxir_core.data.shards import write_whole
from ...fluxir_core.data.source import ImageSource
from ...fluxir_core.image.montage import contact_sheet
from ...fluxir_core.verify.selection import KEEP, OWN, PAPER, metric_named, reasons, select, table
from ..arguments import share
from .work import Rank, in_order, report_skipped, write_skipped

SCORES, TABLE, SHEET, CHECKSUM = "scores", "selection.csv", "dropped.png", "crc32"
SHOWN = 64
"""The most images of the contact sheet."""


def read_scores(folder, source):
    """{index in `source`: {"scores": {metric: number}} or {"reason": text}} of what was scored into `folder`, in any part.

    Rows of other images and of files that have another size by now are passed over; so is a line that was cut off or changed.
    """
    places, found = {name: index for index, name in enumerate(source.names)}, {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            row = _read_line(line)
            if row is None:
                continue
            index = places.get(row["file"])
            if index is not None and row["bytes"] == source.bytes_of(index):
                known = found.setdefault(index, {"scores": {}})
                known["scores"].update(row["scores"])
                if "reason" in row:
                    known["reason"] = row["reason"]
    return found


def _line(row):
    """`row` (a dict) as a line of JSON, with the checksum of what it is without."""
    return json.dumps({**row, CHECKSUM: zlib.crc32(json.dumps(row).encode())}) + "\n"


def _read_line(line):
    """The row of a `_line`; None for any other text."""
    try:
        row = json.loads(line)
        stated = row.pop(CHECKSUM)
    except (ValueError, LookupError, AttributeError, TypeError):
        return None
    return row if stated == zlib.crc32(json.dumps(row).encode()) else None


def score(source, metrics, folder, rank, device):
    """Scores those parts of a source that belong to this process, resuming.

    Args:
        source: ImageSource.
        metrics: {name: verifier}.
        folder: Path of the scores, made where it is missing.
        rank: Rank of this process.
        device: where the images are scored.
    """
    known, parts = read_scores(folder, source), source.parts()
    folder.mkdir(parents=True, exist_ok=True)

    def lacking(index):
        row = known.get(index, {"scores": {}})
        return [] if "reason" in row else [name for name in metrics if name not in row["scores"]]

    def loaded(index):
        try:
            return index, source[index].hq, None
        except ValueError as error:
            return index, None, str(error)

    work = {part: [index for index in parts[part] if lacking(index)] for part in rank.own(parts)}
    with tqdm(total=sum(map(len, work.values())), desc="scoring", disable=None) as bar:
        for part, indices in work.items():
            with open(folder / f"{part}.jsonl", "a", encoding="utf-8") as file:
                if file.tell():
                    file.write("\n")  # behind a line that was cut off
                for index, image, reason in in_order(loaded, indices):
                    row = {"file": source.names[index], "bytes": source.bytes_of(index), "scores": {}}
                    if reason:
                        row["reason"] = reason
                    else:
                        shown = image[None].to(device)
                        row["scores"] = {name: float(metrics[name](shown)[0]) for name in lacking(index)}
                    file.write(_line(row))
                    file.flush()
                    bar.update()


def finish(source, scored, names, keep, out):
    """Writes the table, and the contact sheet of the dropped images.

    Args:
        source: ImageSource.
        scored: what `read_scores` gives for it, every image being there.
        names: of the metrics that decide.
        keep: the share that each metric by itself keeps, in (0, 1].
        out: Path of the folder for both.

    Returns:
        (Selection, number kept, number of images).

    Raises:
        ValueError: no metric has a number.
    """
    read = [index for index in range(len(source)) if "reason" not in scored[index]]
    unreadable = [(source.names[index], row["reason"]) for index, row in sorted(scored.items()) if "reason" in row]
    columns = {name: [scored[index]["scores"][name] for index in read] for name in names}
    selection = select(columns, keep)
    write_skipped(out, "images", unreadable)
    dropped = [(index, by) for index, by in zip(read, selection.dropped_by) if by]
    if dropped:
        spread = range(min(SHOWN, len(dropped)))
        chosen = [dropped[number * len(dropped) // len(spread)] for number in spread]
        labels = [f"{source.keys[index]}: {reasons(scored[index]['scores'], selection, by)}" for index, by in chosen]
        contact_sheet([[source[index].hq] for index, _ in chosen], labels).save(out / SHEET)
    else:
        (out / SHEET).unlink(missing_ok=True)
    write_whole(out / TABLE, table([source.names[index] for index in read], columns, selection, unreadable))
    return selection, len(read) - len(dropped), len(source)


def add_arguments(parser):
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder of shards, or of photos")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help=f"where {TABLE}, {SHEET} and the scores are written")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=PAPER,
        metavar="NAME",
        help=f"metrics of pyiqa, or {', '.join(OWN)}, which need no weights (default {' '.join(PAPER)})",
    )
    parser.add_argument("--keep", type=share, default=KEEP, help="share that each metric by itself keeps (default 0.95)")


def run(arguments):
    rank = Rank.here()
    metrics = {name: metric_named(name, rank.device) for name in dict.fromkeys(arguments.metrics)}
    source = ImageSource(arguments.source)
    with rank.holding(arguments.out):
        _select(arguments, source, metrics, rank)


def _select(arguments, source, metrics, rank):
    names, folder = list(metrics), arguments.out / SCORES
    if rank.rank == 0:
        write_skipped(arguments.out, "source", source.skipped)
    score(source, metrics, folder, rank, rank.device)
    scored = read_scores(folder, source)
    done = sum("reason" in row or all(name in row["scores"] for name in names) for row in scored.values())
    if done < len(source):
        print(f"scored {done} of {len(source)}; the process that finishes last writes {TABLE}. None left? Run this again.")
        return
    selection, kept, total = finish(source, scored, names, arguments.keep, arguments.out)
    limits = ", ".join(f"{name} {limit:.4g}" for name, limit in selection.limits.items())
    print(f"kept {kept} of {total}, at or above {limits}; see {arguments.out / TABLE}")
    report_skipped(arguments.out)
