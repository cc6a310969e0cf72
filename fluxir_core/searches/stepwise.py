"""Stepwise search: the best of several noisy children is taken at every step; its look-ahead is the next step's own call."""

from dataclasses import dataclass

import torch

from ..flow.kernels import ODE, OU, Kernel, check_keeps_time
from .final_selection import Outcome, selection_verifications
from .selectors import take
from .state import finish_baseline
from .task import Budget, ScoredCandidates
from .tile_choice import choose_by_tile, compose_noise


@dataclass(frozen=True)
class StepwiseSearch:
    """Several noisy steps compete on their clean estimates at each step of the searched part; the last step is always the ODE's.

    Args:
        children: how many steps compete; 0 is the baseline.
        window: the latest time, from 0 to 1, at which a searched step starts: all times up to it are searched.
        kernel: how a child is made; one that keeps to the sigmas.
        first_improvement: children are tried one by one, and the first that is better than the estimate so far is taken. Then the
            budget is a cap, and a batch pays what its most expensive image needs at each step.
        baseline_check: finish the baseline too and never return anything worse.
        tile: in pixels; where it is not 0, every tile of that size has a winner of its own, and the step is made with noise that is
            composed of theirs, for one more model call. It needs a task with `score_tile`, and latents (B, ..., H, W).

    Raises:
        ValueError: `children` below 0, a window outside [0, 1], a kernel that leaves the sigmas, or `tile` beside
            `first_improvement`.
    """

    children: int = 4
    window: float = 0.5
    kernel: Kernel = OU()
    first_improvement: bool = False
    baseline_check: bool = True
    tile: int = 0

    def __post_init__(self):
        if self.tile and self.first_improvement:
            raise ValueError("tiles cannot take the first improvement; set tile to 0 or switch first_improvement off.")
        if self.children < 0:
            raise ValueError(f"StepwiseSearch: {self.children} children; use at least 0.")
        if not 0 <= self.window <= 1:
            raise ValueError(f"StepwiseSearch: window is {self.window}; use a time from 0 to 1.")
        check_keeps_time("StepwiseSearch", self.kernel)

    def _branches(self, sigmas):
        """Grid indices of the steps with a selection round."""
        steps = len(sigmas) - 1
        return [i for i in range(steps - 1) if self.children and float(sigmas[i]) <= self.window + 1e-6]

    def budget(self, sigmas, finish=False):
        """Exact, or with `first_improvement` the cap; `finish`: the finalists have a decoder of their own."""
        steps, branches = len(sigmas) - 1, self._branches(sigmas)
        own = steps + (self.children - (0 if self.tile else 1)) * len(branches)
        verifications = self.children * len(branches)
        baseline_check = steps - 1 - branches[0] if self.baseline_check and branches else 0
        verifications += 1 if self.first_improvement and branches else 0
        verifications += selection_verifications(1, self.baseline_check, finish, False, False, not branches)
        return Budget(own + baseline_check, (steps if self.first_improvement else own) + baseline_check, verifications)

    def search(self, state):
        branches = self._branches(state.sigmas)
        x = state.start(state.initial_noises(1))
        v = state.velocity(x, state.times(x, 0))
        baseline = incumbent = None
        for step in range(state.steps):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            if step not in branches:
                x, _ = ODE()(x, v, t, s)
                v = state.velocity(x, state.times(x, step + 1)) if step + 1 < state.steps else None
                continue
            if baseline is None:
                baseline = x, v, step
            if self.first_improvement:
                incumbent = incumbent or state.score_latents(x - t * v)
                x, v, incumbent = self._first_better(state, step, x, v, incumbent)
            elif self.tile:
                x, v = self._best_of_each_tile(state, step, x, v)
            else:
                x, v = self._best(state, step, x, v)
        if baseline is None:
            return Outcome(x, None, x, baseline_is_first=True)
        return Outcome(x, None, finish_baseline(state, *baseline) if self.baseline_check else None)

    def _children(self, state, step, x, v, count, first=0):
        """`count` children of x (1, B, ...) at grid `step` + 1: (states, velocities, clean estimates)."""
        t, s = state.sigmas[step], state.sigmas[step + 1]
        children, _ = self.kernel(x, v, t, s, state.noises(count, "child", step, first=first))
        velocities = state.velocity(children, state.times(children, step + 1))
        return children, velocities, children - s * velocities

    def _best(self, state, step, x, v):
        """The best of all children: (state, velocity)."""
        children, velocities, estimates = self._children(state, step, x, v, self.children)
        cohort = state.score_latents(estimates)
        values = state.values(cohort)
        best = values.argmax(0, keepdim=True)
        state.decide(step + 1, cohort, values, best)
        return take(children, best), take(velocities, best)

    def _best_of_each_tile(self, state, step, x, v):
        """The step whose noise is, tile by tile, that of the child which is best there: (state, velocity)."""
        t, s = state.sigmas[step], state.sigmas[step + 1]
        choice = choose_by_tile(state, self._children(state, step, x, v, self.children)[2], self.tile)
        noise = compose_noise(state.noises(self.children, "child", step), choice.shares.to(x))
        x, _ = self.kernel(x, v, t, s, noise)
        v = state.velocity(x, state.times(x, step + 1))
        most = choice.shares.mean((-2, -1)).argmax(0, keepdim=True).cpu()  # who has most of each image
        state.decide(step + 1, choice.scored, choice.values, most, tiles=choice.winners.T.tolist())
        state.best_so_far = (x - s * v)[0]
        return x, v

    def _first_better(self, state, step, x, v, incumbent):
        """Children one at a time until every image has one above `incumbent`: (state, velocity, its ScoredCandidates).

        Where none is better the best of all is taken. What an image saves is not spent later: it would depend on the others.
        """
        states, velocities, cohort = [], [], incumbent
        chosen = torch.full((x.shape[1],), -1)
        while len(states) < self.children and (chosen < 0).any():
            child, velocity, estimate = self._children(state, step, x, v, 1, first=len(states))
            states.append(child)
            velocities.append(velocity)
            cohort = ScoredCandidates.join(cohort, state.score_latents(estimate))
            values = state.values(cohort)
            better = (values[-1] > values[0]) & (chosen < 0)
            chosen = torch.where(better, len(states), chosen)
        chosen = torch.where(chosen < 0, values[1:].argmax(0) + 1, chosen)[None]
        state.decide(step + 1, cohort, values, chosen)
        own = chosen - 1
        return take(torch.cat(states), own), take(torch.cat(velocities), own), cohort.take(chosen)
