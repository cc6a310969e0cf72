"""`fluxir results`: measures what the tables of docs/results say, and writes each into its page."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

from ...fluxir_core.data.lock import locked
from ...fluxir_core.degrade.presets import EVALUATION
from ..arguments import text_file, whole
from ..outputs import check_apart, check_file, deliver_data
from ..studies import tables

PAGES = Path(__file__).resolve().parents[2] / "docs" / "results"


def add_arguments(parser):
    subparsers = parser.add_subparsers(dest="table", required=True, metavar="TABLE")
    miniature = subparsers.add_parser("miniature", help="the bundled miniature on held-out photos, its gates")
    miniature.add_argument("--model", default="miniature", help="'miniature' or a model folder")
    miniature.add_argument(
        "--photos", type=Path, help="the folder of the fetched photos, for their eighteen crops too (default: six crops)"
    )
    ablation = subparsers.add_parser("ablation", help="FluxIR without f(u) and without the pixel loss")
    ablation.add_argument("--photos", type=Path, default=Path(".cache/photos"), help="as of `fluxir train miniature`")
    ablation.add_argument("--work", type=Path, default=Path(".cache/miniature"), help="the folder of `fluxir train miniature`")
    ablation.add_argument("--steps", type=whole(), default=700, help="training steps of each variant (default 700)")
    curve = subparsers.add_parser("curve", help="several trainings of the miniature side by side")
    curve.add_argument("models", nargs="+", metavar="LABEL=FOLDER", help="a label and a model folder, or 'miniature'")
    cost = subparsers.add_parser("cost", help="one model call with and without the adapters, as `fluxir bench`")
    cost.add_argument("--size", choices=("miniature", "flux-dev"), default="miniature", help="base model's dimensions")
    tts = subparsers.add_parser("tts", help="every search preset on an exact mixture and on the miniature")
    tts.add_argument("--model", default="miniature", help="'miniature' or a model folder")
    tts.add_argument("--degradations", nargs="+", choices=EVALUATION, default=["strong"], help="(default strong)")
    frontier = subparsers.add_parser("frontier", help="every search by its cost, on exact mixtures that no preset was chosen on")
    frontier.add_argument("--development", action="store_true", help="on the mixtures that presets were chosen on")
    frontier.add_argument("--samples", type=whole(2), default=32, help="samples of each mixture (default 32)")
    fusion = subparsers.add_parser("fusion", help="UMMF against direct addition and ControlNet, and the bundled UMMF LoRA")
    fusion.add_argument("--work", type=Path, default=Path(".cache/ummf"), help="the folder of `fluxir train ummf`")
    fusion.add_argument("--steps", type=whole(), default=400, help="training steps of each variant (default 400)")
    few_steps = subparsers.add_parser(
        "few-steps", help="few-step students under every restoration task, against the model they learned from"
    )
    few_steps.add_argument("--model", default="miniature", help="'miniature' or a model folder, with a few-step LoRA")
    few_steps.add_argument("--teacher", required=True, help="the model folder before reinforcement")
    few_steps.add_argument(
        "--control", help="a model folder with a student of the uniform schedules (`schedules: uniform` in its recipe)"
    )
    taste = subparsers.add_parser("taste", help="how many choices My Taste needs, with simulated artists")
    taste.add_argument("--model", default="miniature", help="'miniature' or a model folder")
    tiles = subparsers.add_parser("tiles", help="the seams of tiled restorations, by overlap")
    tiles.add_argument("--model", default="miniature", help="'miniature' or a model folder")
    subparsers.add_parser("training", help="what training needs at FLUX.1-dev's size, and how near plans are to runs")
    for name, table in subparsers.choices.items():
        page = PAGES / f"{name}.md"
        table.add_argument("--page", type=text_file, default=page, help=f"the page to write to (default docs/results/{page.name})")
        table.add_argument("--json", type=Path, metavar="FILE", help="write every measured row")


def run(arguments):
    block_of(arguments.page, arguments.table)
    check_file("--page", arguments.page)
    if arguments.json:
        check_file("--json", arguments.json)
    check_apart({"--page": arguments.page, "--json": arguments.json})
    with locked(arguments.work, "--work") if "work" in arguments else nullcontext():
        rows, table = _measure(arguments)
    if arguments.json:
        deliver_data(arguments.json, json.dumps(rows, indent=1) + "\n")
    replace_block(arguments.page, arguments.table, table)
    print(table)


def _measure(arguments):
    """(rows, Markdown) of the table that was asked for."""
    return {
        "miniature": lambda: tables.miniature(arguments.model, arguments.photos),
        "ablation": lambda: tables.ablation(arguments.work, arguments.photos, arguments.steps),
        "curve": lambda: tables.curve(_labeled(arguments.models)),
        "cost": lambda: tables.cost(arguments.size),
        "taste": lambda: tables.taste(arguments.model),
        "tiles": lambda: tables.tiles(arguments.model),
        "training": tables.training,
        "tts": lambda: tables.tts(arguments.model, arguments.degradations),
        "frontier": lambda: tables.frontier(arguments.development, arguments.samples),
        "fusion": lambda: tables.fusion(arguments.work, arguments.steps),
        "few-steps": lambda: tables.few_steps(arguments.teacher, arguments.model, arguments.control),
    }[arguments.table]()


def _labeled(models):
    """{label: folder} of "label=folder" texts. Raises ValueError for another one."""
    pairs = [model.partition("=")[::2] for model in models]
    for text, (label, folder) in zip(models, pairs):
        if not label or not folder:
            raise ValueError(f"{text} is no model with a label; write LABEL=FOLDER, such as trained=output/miniature.")
    return dict(pairs)


def block_of(page, name):
    """(the text of `page`, where in it what is between `<!-- results: name -->` and `<!-- end -->` begins and ends).

    Raises ValueError when the comments are not there.
    """
    try:
        content = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"--page: {page} cannot be read; run this in the repository, or give a Markdown file.") from None
    found = re.search(rf"<!-- results: {re.escape(name)} -->\n(.*?)<!-- end -->", content, re.S)
    if not found:
        raise ValueError(f"{page} has no block `<!-- results: {name} -->` ... `<!-- end -->`; add one where the table belongs.")
    return content, *found.span(1)


def replace_block(page, name, text):
    """Puts `text` between the comments `<!-- results: name -->` and `<!-- end -->` of `page`.

    Raises ValueError when the comments are not there.
    """
    content, begin, end = block_of(page, name)
    deliver_data(page, f"{content[:begin]}{text}\n{content[end:]}")
