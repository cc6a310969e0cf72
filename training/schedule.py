"""`fluxir schedule`: measures what every jump along the sampling path costs, and finds the cheapest few-step schedules."""

import json
import logging
from pathlib import Path

import torch

from ..fluxir_core.flow.exploration import trajectory
from ..fluxir_core.flow.few_step_sigmas import jump_costs, optimal_schedule, schedule_cost
from ..fluxir_core.flow.rectified_flow import flux_sigmas
from .reinforce import conditioned

COUNTS = (1, 2, 4)
GRID = 24
"""Steps of the fine trajectory, uniform in t: schedules are chosen among its points."""
BATCHES = 8
"""Of the calibration set, of 16 pictures each (4 whole ones in every fourth)."""
START = 0.943
"""Where students begin: FLUX-IR's level for 2 and 4 steps, where the noise covers the degradation. Its level for a single step, 0.328,
is for a student of its own: the other schedules pass through the same times with states that ask for another velocity."""


@torch.no_grad()
def measure_jumps(host, batches, grid, guidance, seed=0):
    """`jump_costs` (N + 1, N + 1) along the sigmas `grid`, the mean over the list `batches`."""
    torch.manual_seed(seed)
    costs = []
    for number, batch in enumerate(batches, 1):
        noise, condition = torch.randn_like(batch.clean), conditioned(host, batch, 1)
        strength = noise.new_full((len(noise),), guidance)
        walked = trajectory(lambda x, t: host.velocity(x, t, condition, strength).float(), noise, grid)
        costs.append(jump_costs(*walked, grid))
        logging.info("schedule: jumps of %d of %d batches", number, len(batches))
    return torch.stack(costs).mean(0)


def choose(jumps, grid, counts=COUNTS):
    """{steps: (sigmas, cost)}: the cheapest schedules on the points of `grid`, from the one nearest to START."""
    first = (grid[:-1] - START).abs().argmin().item()
    found = {steps: optimal_schedule(jumps, steps, first) for steps in counts}
    return {steps: ([grid[i].item() for i in indices], schedule_cost(jumps, indices)) for steps, indices in found.items()}


def uniform_schedules(counts):
    """{steps: sigmas} of equal steps from pure noise: what the chosen schedules are held against."""
    return {steps: [1 - k / steps for k in range(steps + 1)] for steps in counts}


def add_arguments(parser):
    parser.add_argument("--model", required=True, help="a model folder; its adapter's file is given the schedules")
    parser.add_argument("--work", type=Path, default=Path(".cache/tasks"), help="the folder of `fluxir train tasks`")
    parser.add_argument("--steps", type=int, nargs="+", default=COUNTS, help="schedules to find (default 1 2 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the grid, all costs and the schedules")
    parser.add_argument("--quick", action="store_true", help="from one batch of little data, for the tests")


def run(arguments):
    from ..fluxir_core.lora.few_steps import add_schedules
    from .flux_ir import QUICK, Amounts, load

    loaded = load(arguments.model, arguments.work, QUICK if arguments.quick else Amounts(), 16, seed=3)
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
        arguments.json.write_text(json.dumps({"grid": grid.tolist(), "jumps": finite, "schedules": schedules}) + "\n")
