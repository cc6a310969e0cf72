"""`fluxir train tasks`, `reinforce` and `distill`: FLUX-IR's stages on the miniature."""

from pathlib import Path

from ...fluxir_core.verify.selection import OWN
from ..diffusers_host.model_folder import model_folder
from ..miniature.stages import CLOSENESS, QUICK, Amounts, train_distill, train_reinforce, train_tasks
from ..outputs import check_folder

STAGES = {
    "tasks": ("an adapter that handles all seven restoration tasks, from the bundled one", "miniature"),
    "reinforce": ("the adapter's sampling paths drawn to the best of those around them", None),
    "distill": ("a few-step LoRA for the adapter's schedules, added to the model folder", None),
}
"""The recipes of `fluxir train` that this file runs: what each makes, and the model it starts from unless given."""


def add_arguments(recipes):
    """The subcommands of `fluxir train`, for `run`."""
    for name, (what, model) in STAGES.items():
        stage = recipes.add_parser(name, help=what)
        stage.add_argument("--model", default=model, required=model is None, help="a model folder to start from")
        stage.add_argument("--work", type=Path, default=Path(".cache/tasks"), help="lessons and checkpoints; resumes from them")
        stage.add_argument(
            "--photos", type=Path, default=Path(".cache/photos"), help="the photographs' folder, as of `fluxir train miniature`"
        )
        stage.add_argument("--quick", action="store_true", help="a few steps on little data: files that load, nothing learned")
        if name == "reinforce":
            stage.add_argument(
                "--reward",
                default=CLOSENESS,
                metavar="NAME",
                help=(f"which sampling path is best: closeness to the truth (default), {', '.join(OWN)} or a metric of pyiqa"),
            )
        if name == "distill":
            stage.add_argument("--uniform", action="store_true", help="train the control on equal steps, into --work")
        else:
            stage.add_argument("--out", type=Path, default=Path(f"output/{name}"), help="the model folder to write")


def run(arguments):
    amounts = QUICK if arguments.quick else Amounts()
    photos = None if arguments.quick else arguments.photos
    if arguments.recipe == "distill":
        check_folder("--model", model_folder(arguments.model))
        print(train_distill(arguments.model, arguments.work, photos, arguments.uniform, amounts))
    elif arguments.recipe == "reinforce":
        train_reinforce(arguments.model, arguments.work, arguments.out, photos, arguments.reward, amounts)
    else:
        train_tasks(arguments.model, arguments.work, arguments.out, photos, amounts)
