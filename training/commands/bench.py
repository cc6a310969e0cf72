"""`fluxir bench`: what the adapters and their training cost."""

import json

from ..arguments import text_file, whole
from ..studies.bench_model_call import bench_adapter, bench_condition


def add_arguments(parser):
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    adapter = subjects.add_parser("adapter", help="one model call with and without the FluxIR adapter")
    condition = subjects.add_parser("condition", help="one model call with and without UMMF's condition tokens")
    training = subjects.add_parser("training", help="optimizer steps of a configuration, beside what the plan says")
    training.add_argument("--config", type=text_file, required=True, help="as for `fluxir train`; the model's weights are random")
    training.add_argument("--recipe", choices=("fluxir", "ummf", "reinforce", "distill"), default="fluxir", help="default fluxir")
    training.add_argument("--steps", type=whole(), default=20, help="timed steps of one micro-batch (default 20)")
    for subject, rank in ((adapter, 32), (condition, 16)):
        subject.add_argument("--size", choices=("miniature", "flux-dev"), default="miniature", help="base model's dimensions")
        subject.add_argument("--pixels", type=whole(16, 16384), help="image's side (default 256, flux-dev 1024)")
        subject.add_argument("--rank", type=whole(1, 4096), default=rank, help=f"SE or LoRA rank (default {rank})")
        subject.add_argument("--repeats", type=whole(), default=15, help="timed rounds (default 15)")
    adapter.add_argument("--controlnet", action="store_true", help="time diffusers' FluxControlNetModel in the same run too")


def run(arguments):
    if arguments.subject == "training":
        from ..studies.bench_training import bench_training

        print(json.dumps(bench_training(arguments.config, arguments.recipe, arguments.steps), indent=2))
        return
    bench = {"adapter": bench_adapter, "condition": bench_condition}[arguments.subject]
    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "subject")}
    print(json.dumps(bench(**options), indent=2))
