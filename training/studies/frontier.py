"""`fluxir results frontier`: what every search finds for its cost, on mixtures whose velocity and density are exact."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from ...fluxir_core.flow.kernels import OU, ZeroDrift
from ...fluxir_core.flow.rectified_flow import euler, flux_sigmas
from ...fluxir_core.searches.evolutionary import EvolutionarySearch
from ...fluxir_core.searches.particles import SMC, Halving
from ...fluxir_core.searches.search import search
from ...fluxir_core.searches.stepwise import StepwiseSearch
from ...fluxir_core.searches.task import Task
from ...fluxir_core.searches.within_budget import WithinBudget
from .frontier_rivals import FunnelSMC, GlobalTrimming, LiDAR, RewardGradient, Rollover
from .gaussian_mixture import GaussianMixture

DEVELOPMENT = ((16, 8, 0.2025, 0), (24, 5, 0.08, 1), (48, 20, 0.4, 2))
HELD_OUT = ((32, 12, 0.15, 10), (64, 6, 0.3, 11), (20, 16, 0.1, 12))
"""Mixtures as (dimensions, components, variance, seed): presets were chosen on the first three, and the table is of the others."""
STEPS, SHIFTS, BUDGETS = (8, 12, 25), (0.0, 1.15), (1.5, 3, 5, 15)
SHIPPED = "shipped"
NEEDS_GRADIENT = "reward gradient"
EVERY = tuple(share / 200 for share in range(200))


class Case(NamedTuple):
    """A mixture, and the reward that is searched on with the one that is not."""

    mixture: GaussianMixture
    reward: Callable
    held_out: Callable


def cases(mixtures):
    """A linear and a curved reward on each of `mixtures`."""
    for dims, components, variance, seed in mixtures:
        mixture = GaussianMixture(dims, components, variance, seed)
        yield Case(mixture, mixture.reward, mixture.held_out)
        yield Case(mixture, mixture.curved_reward, mixture.curved_held_out)


def _largest(make, sigmas, times, least=2):
    """The largest make(n), n >= `least`, that costs at most `times` the baseline's calls; None where there is none."""
    found, limit = None, times * (len(sigmas) - 1) + 1e-9
    for n in range(least, 64):
        algorithm = make(n)
        if algorithm.budget(sigmas).nfe > limit:
            break
        found = algorithm
    return found


def methods(sigmas, times, reward):
    """{name: algorithm} of everything that has a setting for at most `times` the baseline's calls on `sigmas`."""
    steps = len(sigmas) - 1
    searched = max(1, math.ceil(0.5 * (steps - 1)))
    families = {
        "ResFlow-Tuner": lambda n: EvolutionarySearch(1, n, kernel=ZeroDrift()),
        "best of n": lambda n: EvolutionarySearch(n, 0, rounds=()),
        "halving": Halving,
        "SMC, 4 rounds": SMC,
        "SMC, every step": lambda n: SMC(n, EVERY, OU(math.sqrt(2)), strength=6.0),
        "SMC, funnel, adaptive": lambda n: FunnelSMC(n + n // 2, max(1, n // 2)),
        "stepwise, sigma 0.5": lambda n: StepwiseSearch(n, 0.5, OU(math.sqrt(2))),
        "stepwise, sigma 0.8": lambda n: StepwiseSearch(n, 0.8, OU(math.sqrt(2))),
        "stepwise, everywhere": lambda n: StepwiseSearch(n, 1.0, OU(1.0)),
        "thresholds with rollover": lambda n: Rollover(n, searched),
        "global trimming": lambda n: GlobalTrimming(n, 2),
        "LiDAR": LiDAR,
    }
    found = {SHIPPED: WithinBudget(times)} | {name: _largest(make, sigmas, times) for name, make in families.items()}
    if RewardGradient(reward).budget(sigmas).nfe <= times * steps:
        found[NEEDS_GRADIENT] = RewardGradient(reward)
    return {name: algorithm for name, algorithm in found.items() if algorithm is not None}


def measure(mixtures=HELD_OUT, steps=STEPS, shifts=SHIFTS, budgets=BUDGETS, samples=32):
    """Runs every search within every budget on mixtures whose density is exact.

    Args:
        mixtures: (dimensions, components, variance, seed) each.
        steps: numbers of steps.
        shifts: of FLUX's sigmas.
        budgets: the most model calls, in times of the baseline's.
        samples: noises that are started from, the same for every method.

    Returns:
        Rows {shift, steps, budget, method, case, nfe, gain, held_out, log_density}. case counts the mixtures' rewards, two each.
        The last three are lists, one entry a sample: changes over the baseline, rewards in standard deviations over the data.
    """
    rows = []
    for kind, case in enumerate(cases(mixtures)):
        data = case.mixture.sample(2000)
        spread, held_spread = case.reward(data).std(), case.held_out(data).std()
        noise = torch.randn(samples, data.shape[1], generator=torch.Generator().manual_seed(3))
        task = Task(case.mixture.velocity, lambda x: x, lambda x, reward=case.reward: {"reward": reward(x)})
        for shift, count in ((shift, count) for shift in shifts for count in steps):
            sigmas = flux_sigmas(count, shift)
            base = euler(case.mixture.velocity, noise, sigmas)
            for times in budgets:
                for name, algorithm in methods(sigmas, times, case.reward).items():
                    found = search(task, noise, sigmas, algorithm)
                    x = found.latents
                    rows.append(
                        {
                            "shift": shift,
                            "steps": count,
                            "budget": times,
                            "method": name,
                            "case": kind,
                            "nfe": found.report["nfe"],
                            "gain": ((case.reward(x) - case.reward(base)) / spread).tolist(),
                            "held_out": ((case.held_out(x) - case.held_out(base)) / held_spread).tolist(),
                            "log_density": (case.mixture.log_density(x) - case.mixture.log_density(base)).tolist(),
                        }
                    )
    return rows


def _mean(rows, name):
    """(mean, standard error) over all samples of `rows`."""
    values = torch.tensor([row[name] for row in rows]).flatten()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def regret(rows, method):
    """By how much `method` gains less than the best method of `rows`, as a share of the best's gain; gradients do not count."""
    gains = {name: _mean(own, "gain")[0] for name, own in _by(rows, "method").items() if name != NEEDS_GRADIENT}
    best = max(gains.values())
    return (best - gains[method]) / best if method in gains else math.nan


def _by(rows, *keys):
    """Rows grouped by the values of `keys`; a single key's values are the groups' names."""
    found = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        found.setdefault(key[0] if len(keys) == 1 else key, []).append(row)
    return found


def table(rows):
    """Markdown of `measure` rows: for each shift every method by budget, the shipped one's regrets, and it beside the paper."""
    budgets, samples = sorted({row["budget"] for row in rows}), len(rows[0]["gain"])
    kinds, steps = len({row["case"] for row in rows}), sorted({row["steps"] for row in rows})
    lines = [
        f"Gains over the baseline: reward ± standard error / held-out reward / log-density. Means over {kinds} rewards, "
        f"{' / '.join(map(str, steps))} steps and {samples} samples each. Regret: how much less reward than the best method of its "
        f"column, as a share; {NEEDS_GRADIENT} is left out of it, because no verifier of this pack gives gradients. In brackets: the calls of a method that used much less "
        "than the budget."
    ]
    for shift, own in _by(rows, "shift").items():
        lines += ["", f"Shift {shift:g}:", "", "| | " + " | ".join(f"{b:g}x | regret" for b in budgets) + " |"]
        lines.append("|---" * (2 * len(budgets) + 1) + "|")
        for name in dict.fromkeys(row["method"] for row in own):
            cells = []
            for budget in budgets:
                column = _complete([row for row in own if row["budget"] == budget], len(steps))
                here = [row for row in column if row["method"] == name]
                cells.append(f"{_cell(here)} | {regret(column, name):.0%}".replace("nan%", "") if here else " | ")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "*balanced* (5x) beside ResFlow-Tuner's search (15x), at equal steps:", ""]
    lines += ["| shift | steps | balanced | ResFlow-Tuner | its loss of log-density that balanced has |", "|---" * 5 + "|"]
    for (shift, count), own in _by(rows, "shift", "steps").items():
        pair = [[row for row in own if (row["budget"], row["method"]) == key] for key in ((5, SHIPPED), (15, "ResFlow-Tuner"))]
        if all(pair):
            shipped, paper = (_mean(part, "log_density")[0] for part in pair)
            lines.append(f"| {shift:g} | {count} | {_cell(pair[0])} | {_cell(pair[1])} | {max(0.0, shipped / paper):.0%} |")
    return "\n".join(lines)


def _complete(rows, steps):
    """Of `rows` those of methods that have a setting at every number of steps: others would be means over easier cases."""
    return [row for own in _by(rows, "method").values() if len({row["steps"] for row in own}) == steps for row in own]


def _cell(rows):
    (gain, error), (held_out, _), (density, _) = (_mean(rows, name) for name in ("gain", "held_out", "log_density"))
    calls = sum(row["nfe"] / row["steps"] for row in rows) / len(rows)
    saved = f" ({calls:.1f}x)" if calls < 0.8 * rows[0]["budget"] else ""
    return f"{gain:.2f} ± {error:.2f} / {held_out:.2f} / {density:+.1f}{saved}"
