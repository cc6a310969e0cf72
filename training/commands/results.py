"""`fluxir results`: measures what the README's tables say, and writes the tables."""

import json
import re
from pathlib import Path

from ...fluxir_core.degrade.presets import EVALUATION
from ..studies import tables

README = Path(__file__).resolve().parents[2] / "README.md"


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
    ablation.add_argument("--steps", type=int, default=700, help="training steps of each variant (default 700)")
    curve = subparsers.add_parser("curve", help="several trainings of the miniature side by side")
    curve.add_argument("models", nargs="+", metavar="LABEL=FOLDER", help="a label and a model folder, or 'miniature'")
    cost = subparsers.add_parser("cost", help="one model call with and without the adapters, as `fluxir bench`")
    cost.add_argument("--size", choices=("miniature", "flux-dev"), default="miniature", help="base model's dimensions")
    tts = subparsers.add_parser("tts", help="every search preset on an exact mixture and on the miniature")
    tts.add_argument("--model", default="miniature", help="'miniature' or a model folder")
    tts.add_argument("--degradations", nargs="+", choices=EVALUATION, default=["strong"], help="(default strong)")
    fusion = subparsers.add_parser("fusion", help="UMMF against direct addition and ControlNet, and the bundled UMMF LoRA")
    fusion.add_argument("--work", type=Path, default=Path(".cache/ummf"), help="the folder of `fluxir train ummf`")
    fusion.add_argument("--steps", type=int, default=400, help="training steps of each variant (default 400)")
    few_steps = subparsers.add_parser(
        "few-steps", help="few-step students under every restoration task, against the model they learnt from"
    )
    few_steps.add_argument("--model", default="miniature", help="'miniature' or a model folder, with a few-step LoRA")
    few_steps.add_argument("--teacher", required=True, help="the model folder before reinforcement")
    few_steps.add_argument(
        "--control", help="a model folder with a student of the uniform schedules (`fluxir train distill --uniform`)"
    )
    tiles = subparsers.add_parser("tiles", help="the seams of tiled restorations, by overlap")
    tiles.add_argument("--model", default="miniature", help="'miniature' or a model folder")
    training = subparsers.add_parser("training", help="what training needs at FLUX.1-dev's size, and how near plans are to runs")
    for table in (training, tiles, miniature, ablation, curve, cost, tts, fusion, few_steps):
        table.add_argument("--readme", type=Path, default=README, help="the README to write the table to")
        table.add_argument("--json", type=Path, metavar="FILE", help="write every measured row")


def run(arguments):
    rows, table = {
        "miniature": lambda: tables.miniature(arguments.model, arguments.photos),
        "ablation": lambda: tables.ablation(arguments.work, arguments.photos, arguments.steps),
        "curve": lambda: tables.curve(dict(model.split("=", 1) for model in arguments.models)),
        "cost": lambda: tables.cost(arguments.size),
        "tiles": lambda: tables.tiles(arguments.model),
        "training": tables.training,
        "tts": lambda: tables.tts(arguments.model, arguments.degradations),
        "fusion": lambda: tables.fusion(arguments.work, arguments.steps),
        "few-steps": lambda: tables.few_steps(arguments.teacher, arguments.model, arguments.control),
    }[arguments.table]()
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    replace_block(arguments.readme, arguments.table, table)
    print(table)


def replace_block(readme, name, text):
    """Puts `text` between the comments `<!-- results: name -->` and `<!-- end -->` of `readme`.

    Raises ValueError when the comments are not there.
    """
    content = readme.read_text()
    pattern = rf"(<!-- results: {re.escape(name)} -->\n).*?<!-- end -->"
    if not re.search(pattern, content, re.S):
        raise ValueError(f"{readme} has no block `<!-- results: {name} -->` ... `<!-- end -->`; add one where the table belongs.")
    readme.write_text(re.sub(pattern, lambda match: f"{match[1]}{text}\n<!-- end -->", content, count=1, flags=re.S))
