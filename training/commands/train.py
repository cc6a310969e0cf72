"""`fluxir train`: makes weights."""

import os
from contextlib import nullcontext
from pathlib import Path

from ...fluxir_core.data.lock import locked
from ..arguments import text_file
from ..outputs import check_apart, check_file, check_folder

PHOTOS = Path(".cache/photos")

WHAT = {
    "fluxir": "a FluxIR adapter",
    "ummf": "a UMMF LoRA, which lets a FLUX model read condition images",
    "reinforce": "an adapter or LoRA whose sampling paths are drawn to the best of those around them",
    "distill": "a few-step LoRA for the schedules that `fluxir schedule` has found",
}
"""The recipes that a configuration is for, and what each makes."""


def add_arguments(parser):
    recipes = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    miniature = recipes.add_parser("miniature", help="the bundled mini-FLUX, its VAE and its FluxIR adapter")
    miniature.add_argument("--work", type=Path, default=Path(".cache/miniature"), help="checkpoints; resumes from them")
    miniature.add_argument("--out", type=Path, default=Path("output/miniature"), help="where the model files are written")
    miniature.add_argument(
        "--photos",
        type=Path,
        default=PHOTOS,
        help=f"a folder of the photographs it learns from, fetched if absent (default {PHOTOS})",
    )
    miniature.add_argument("--quick", action="store_true", help="a minute of training: files that load, useless images")
    for name, what in WHAT.items():
        recipe = recipes.add_parser(name, help=what)
        recipe.add_argument("--config", type=text_file, required=True, help=f"a YAML file such as training/configs/{name}.yaml")
        recipe.add_argument("--work", type=Path, default=Path(f".cache/{name}"), help="caches and checkpoints; resumes from them")
        recipe.add_argument("--out", type=Path, default=Path(f"output/{name}.safetensors"), help="the file for the nodes")
        recipe.add_argument("--plan", action="store_true", help="print what the run will need, for FLUX.1-dev, and stop")


def run(arguments):
    if getattr(arguments, "plan", False):
        from ..recipes.memory_plan import print_memory_plan

        print_memory_plan(_config(arguments))
        return
    check_folder("--work", arguments.work)
    if arguments.recipe in WHAT:
        check_file("--out", arguments.out, (".safetensors",), make_folder=True)
        config = _config(arguments)
        if config.start:
            check_apart({"--out": arguments.out}, {"start": config.start})
    else:
        check_folder("--out", arguments.out)
        check_apart({"--work": arguments.work, "--out": arguments.out})
    alone = int(os.environ.get("RANK", 0)) == 0  # the processes of one run share the folder
    with locked(arguments.work, "--work") if alone else nullcontext():
        _train(arguments)


def _config(arguments):
    from ..recipes.config import RECIPES

    return RECIPES[arguments.recipe].load(arguments.config)


def _train(arguments):
    if arguments.recipe in WHAT:
        from ..recipes.train import train

        train(_config(arguments), arguments.work, arguments.out)
        return
    import torch

    from ..miniature.recipe import QUICK, MiniatureSize, train_miniature

    device = "cuda" if torch.cuda.is_available() else "cpu"
    amounts = QUICK if arguments.quick else MiniatureSize()
    train_miniature(amounts, arguments.work, arguments.out, arguments.photos, device)
