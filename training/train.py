"""`fluxir train`: makes weights."""

from pathlib import Path


def add_arguments(parser):
    recipes = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    miniature = recipes.add_parser("miniature", help="the bundled mini-FLUX, its VAE and its FluxIR adapter")
    miniature.add_argument("--work", type=Path, default=Path(".cache/miniature"), help="checkpoints; resumes from them")
    miniature.add_argument("--out", type=Path, default=Path("output/miniature"), help="where the model files are written")
    miniature.add_argument("--quick", action="store_true", help="a minute of training: files that load, useless pictures")
    ummf = recipes.add_parser("ummf", help="a UMMF LoRA, which lets a FLUX model read condition pictures")
    ummf.add_argument("--config", type=Path, required=True, help="a YAML file such as training/configs/ummf.yaml")
    ummf.add_argument("--work", type=Path, default=Path(".cache/ummf"), help="checkpoints; resumes from them")
    ummf.add_argument("--out", type=Path, default=Path("output/ummf.safetensors"), help="the LoRA's file")


def run(arguments):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.recipe == "miniature":
        from .miniature.recipe import QUICK, Plan, train_miniature

        train_miniature(QUICK if arguments.quick else Plan(), arguments.work, arguments.out, device)
    else:
        from .train_ummf import UMMFConfig, train

        train(UMMFConfig.load(arguments.config), arguments.work, arguments.out, device)
