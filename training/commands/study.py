"""`fluxir study`: a page on which people compare methods blind, and the ranking that their votes give."""

import json
from pathlib import Path

from ...fluxir_core.image.files import load_image
from ..outputs import check_apart, check_file, deliver_data
from ..studies.blind_study import read_votes, results, study_page
from .evaluate import images_in

FIT = "fit"


def add_arguments(parser):
    parser.add_argument(
        "places",
        nargs="+",
        metavar="FOLDER",
        help=f"two or more folders with a method's images each, paired by name, NAME=FOLDER to name one; or `{FIT} VOTES...`: the "
        "ranking by files of votes",
    )
    parser.add_argument("--degraded", type=Path, metavar="DIR", help="the degraded images, shown between the two")
    parser.add_argument("--out", type=Path, help="the page to write (default study.html)")
    parser.add_argument("--title", help="what stands above the pairs (default: Which is better?)")
    parser.add_argument("--small", action="store_true", help="a smaller page: images as WebP of quality 95 instead of PNG")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"of `{FIT}`: write the ranking to this file, too")


def run(arguments):
    if arguments.places[0] == FIT:
        rank(arguments)
    else:
        make_page(arguments)


def rank(arguments):
    """Prints the ranking by the files of votes."""
    for option in ("degraded", "out", "title", "small"):
        if getattr(arguments, option):
            raise ValueError(f"--{option}: `{FIT}` makes no page; leave it out.")
    if len(arguments.places) == 1:
        raise ValueError(f"`{FIT}` needs votes; give the files that the study's page saved.")
    if arguments.json:
        check_file("--json", arguments.json)
        check_apart({"--json": arguments.json}, {f"VOTES {path}": Path(path) for path in arguments.places[1:]})
    rows, table = results(read_votes(arguments.places[1:]))
    if arguments.json:
        deliver_data(arguments.json, json.dumps(rows, indent=1) + "\n")
    print(table)


def make_page(arguments):
    """Writes the page, and says what is on it."""
    if arguments.json:
        raise ValueError(f"--json: only `{FIT}` writes one; leave it out.")
    out = arguments.out or Path("study.html")
    check_file("--out", out, (".html",))
    folders = {}
    for place in arguments.places:
        label, named, folder = place.rpartition("=")
        name = label if named else Path(place).resolve().name
        if not name or name in folders:
            raise ValueError(f"FOLDER: {place} has no name of its own; give it as NAME=FOLDER.")
        folders[name] = images_in(folder)
    if len(folders) < 2:
        raise ValueError("FOLDER: one method alone cannot be compared; give two or more folders.")
    names = sorted(set.intersection(*({*own} for own in folders.values())))
    if not names:
        raise ValueError("FOLDER: no image has the same name in all folders; name each result as its input, any suffix.")
    degraded = images_in(arguments.degraded) if arguments.degraded else {}
    page = study_page(
        arguments.title or "Which is better?",
        {name: {method: load_image(own[name]) for method, own in folders.items()} for name in names},
        {name: load_image(degraded[name]) for name in names if name in degraded},
        ".webp" if arguments.small else ".png",
    )
    deliver_data(out, page)
    pairs = len(names) * len(folders) * (len(folders) - 1) // 2
    left_out = sum(len(own) for own in folders.values()) - len(names) * len(folders)
    print(f"{out}: {len(names)} images, {len(folders)} methods, {pairs} pairs, {len(page) / 1e6:.1f} MB. Open it in any browser.")
    if left_out:
        print(f"{left_out} images without a partner in every folder are left out.")
