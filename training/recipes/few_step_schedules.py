"""Few-step schedules (FLUX-IR, arXiv 2410.04811): what every jump along a trajectory costs, and the cheapest few."""

import logging

import torch

from ...fluxir_core.flow.exploration import trajectory
from ...fluxir_core.flow.few_step_sigmas import jump_costs, optimal_schedule, schedule_cost
from .reinforce import prepare_condition

COUNTS = (1, 2, 4)


GRID = 24
"""Steps of the fine trajectory, uniform in t: schedules are chosen among its points."""


START = 0.943
"""Where students begin: FLUX-IR's level for 2 and 4 steps, where the noise covers the degradation. Its level for a single step, 0.328,
is for a student of its own: the other schedules pass through the same times with states that ask for another velocity."""


@torch.no_grad()
def measure_jumps(host, batches, grid, guidance, seed=0):
    """Measures what every jump along a trajectory costs, the mean over batches.

    Args:
        host: FluxIRHost or UMMFHost.
        batches: of type Batch.
        grid: sigmas (N + 1,), falling.
        guidance: a number.
        seed: of the noise.

    Returns:
        (N + 1, N + 1), see `jump_costs`.
    """
    torch.manual_seed(seed)
    costs = []
    for number, batch in enumerate(batches, 1):
        noise, condition = torch.randn_like(batch.clean), prepare_condition(host, batch, 1)
        strength = noise.new_full((len(noise),), guidance)
        walked = trajectory(lambda x, t: host.velocity(x, t, condition, strength).float(), noise, grid)
        costs.append(jump_costs(*walked, grid))
        logging.info("schedule: the jumps of %d batches are measured", number)
    return torch.stack(costs).mean(0)


def choose(jumps, grid, counts=COUNTS):
    """{steps: (sigmas, cost)}: the cheapest schedules on the points of `grid`, from the one nearest to START."""
    first = (grid[:-1] - START).abs().argmin().item()
    found = {steps: optimal_schedule(jumps, steps, first) for steps in counts}
    return {steps: ([grid[i].item() for i in indices], schedule_cost(jumps, indices)) for steps, indices in found.items()}


def uniform_schedules(counts):
    """{steps: sigmas} of equal steps from pure noise: what the chosen schedules are held against."""
    return {steps: [1 - k / steps for k in range(steps + 1)] for steps in counts}
