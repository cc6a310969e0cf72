"""`fluxir schedule`: finds the cheapest few-step schedules of a model and writes them into its file."""

import json
from pathlib import Path

from ...fluxir_core.flow.rectified_flow import flux_sigmas
from ..arguments import whole
from ..diffusers_host.model_folder import model_folder, only_file
from ..outputs import check_file, deliver_data
from ..recipes.few_step_schedules import COUNTS, GRID, choose, measure_jumps

BATCHES = 8
"""Of the calibration set, of 16 images each (4 whole ones in every fourth)."""


def add_arguments(parser):
    parser.add_argument("--model", required=True, help="a model folder; its adapter's file is given the schedules")
    parser.add_argument(
        "--photos", type=Path, default=Path(".cache/photos"), help="the photographs' folder, as of `fluxir train miniature`"
    )
    parser.add_argument("--steps", type=whole(1, GRID), nargs="+", default=COUNTS, help="schedules to find (default 1 2 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the grid, all costs and the schedules")
    parser.add_argument("--quick", action="store_true", help="from one batch of little data, for the tests")


def run(arguments):
    if arguments.json:
        check_file("--json", arguments.json)
    check_file("--model", only_file(model_folder(arguments.model) / "fluxir_adapters"))
    from ...fluxir_core.lora.few_steps import add_schedules
    from ..miniature.stages import QUICK, Amounts, load

    photos = None if arguments.quick else arguments.photos
    loaded = load(arguments.model, photos, QUICK if arguments.quick else Amounts(), 16, seed=3)
    grid = flux_sigmas(GRID, shift=0)
    batches = [loaded.batches.whole(step) for step in range(1 if arguments.quick else BATCHES)]
    jumps = measure_jumps(loaded.host, batches, grid, loaded.guidance)
    found = choose(jumps, grid, arguments.steps)
    for steps, (sigmas, cost) in found.items():
        print(f"{steps} steps: {', '.join(f'{t:.3f}' for t in sigmas)}; cost {cost:.4f}")
    schedules = {steps: sigmas for steps, (sigmas, _) in found.items()}
    add_schedules(loaded.adapter_path, schedules)
    if arguments.json:
        finite = [[cost if cost < float("inf") else None for cost in row] for row in jumps.tolist()]
        deliver_data(arguments.json, json.dumps({"grid": grid.tolist(), "jumps": finite, "schedules": schedules}) + "\n")
