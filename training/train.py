"""`fluxir train`: makes weights."""

from pathlib import Path


def add_arguments(parser):
    recipes = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    miniature = recipes.add_parser("miniature", help="the bundled mini-FLUX, its VAE and its FluxIR adapter")
    miniature.add_argument("--work", type=Path, default=Path(".cache/miniature"), help="checkpoints; resumes from them")
    miniature.add_argument("--out", type=Path, default=Path("output/miniature"), help="where the model files are written")
    miniature.add_argument("--quick", action="store_true", help="a minute of training: files that load, useless pictures")


def run(arguments):
    import torch

    from .miniature.recipe import QUICK, Plan, train_miniature

    device = "cuda" if torch.cuda.is_available() else "cpu"
    train_miniature(QUICK if arguments.quick else Plan(), arguments.work, arguments.out, device)
