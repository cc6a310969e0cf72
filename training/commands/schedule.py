"""`fluxir schedule`: finds the cheapest few-step schedules of an adapter or LoRA and writes them into its file."""

import json
from pathlib import Path

from ...fluxir_core.data.lock import locked
from ..arguments import text_file, whole
from ..outputs import check_file, check_folder, deliver_data
from ..recipes.few_step_schedules import COUNTS, GRID, choose


def add_arguments(parser):
    parser.add_argument("--config", type=text_file, required=True, help="the YAML file of `fluxir train distill`")
    parser.add_argument("--work", type=Path, default=Path(".cache/distill"), help="its --work folder, with the encoded images")
    parser.add_argument("--steps", type=whole(1, GRID - 1), nargs="+", default=COUNTS, help="schedules to find (default 1 2 4)")
    parser.add_argument("--batches", type=whole(1), default=8, help="batches of the configuration to measure on (default 8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the grid, all costs and the schedules")


def run(arguments):
    if arguments.json:
        check_file("--json", arguments.json)
    check_folder("--work", arguments.work)
    from ...fluxir_core.flow.rectified_flow import flux_sigmas
    from ...fluxir_core.lora.few_steps import add_schedules
    from ..recipes.adapters import check_start, start_path
    from ..recipes.config import DistillConfig
    from ..recipes.train import jumps_of

    config = DistillConfig.load(arguments.config)
    path = start_path(config)
    check_start(path)
    check_file("start", path, (".safetensors",))
    grid = flux_sigmas(GRID, shift=0)
    with locked(arguments.work, "--work"):
        jumps = jumps_of(config, arguments.work, grid, arguments.batches)
    found = choose(jumps, grid, arguments.steps)
    for steps, (sigmas, cost) in found.items():
        print(f"{steps} steps: {', '.join(f'{t:.3f}' for t in sigmas)}; cost {cost:.4f}")
    schedules = {steps: sigmas for steps, (sigmas, _) in found.items()}
    add_schedules(path, schedules)
    if arguments.json:
        finite = [[cost if cost < float("inf") else None for cost in row] for row in jumps.tolist()]
        deliver_data(arguments.json, json.dumps({"grid": grid.tolist(), "jumps": finite, "schedules": schedules}) + "\n")
