"""Searches that `fluxir results frontier` compares with and that are not shipped: on its mixtures they lose, or need gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...fluxir_core.flow.kernels import ODE, OU
from ...fluxir_core.searches.final_selection import Outcome, selection_verifications
from ...fluxir_core.searches.selectors import resample, take
from ...fluxir_core.searches.state import finish_baseline
from ...fluxir_core.searches.task import Budget


@dataclass(frozen=True)
class FunnelSMC:
    """SMC with a round at every step, particles falling from `first` to `last`, and a temperature that keeps half of them.

    The strength of each round is the one whose effective sample size is half of the particles (2508.12361).
    """

    first: int
    last: int
    baseline_check = True

    def _counts(self, steps):
        return [round(self.first + (self.last - self.first) * step / max(steps - 1, 1)) for step in range(steps)]

    def budget(self, sigmas, finish=False):
        counts = self._counts(len(sigmas) - 1)
        nfe = sum(counts) + len(counts) - 1
        finalists = selection_verifications(self.last, True, finish, False, False, False)
        return Budget(nfe, nfe, sum(counts[:-1]) + finalists)

    def search(self, state):
        counts, kernel = self._counts(state.steps), OU(math.sqrt(2))
        x = state.start(state.initial_noises(self.first))
        for step in range(state.steps - 1):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            v = state.velocity(x, state.times(x, step))
            if step == 0:
                baseline = x[:1], v[:1], step
            cohort = state.score_latents(x - t * v)
            values = state.values(cohort)
            scaled = values * _strength(values)
            index = resample(scaled, 1.0, state.generators("resample", step))[
                torch.arange(counts[step + 1]) * counts[step] // counts[step + 1]
            ]
            state.decide(step, cohort, values, index)
            x, _ = kernel(take(x, index), take(v, index), t, s, state.noises(len(index), "move", step))
        v = state.velocity(x, state.times(x, state.steps - 1))
        x, _ = ODE()(x, v, state.sigmas[-2], 0.0)
        return Outcome(x, None, finish_baseline(state, *baseline))


def _strength(values):
    """(B,) strengths at which exp(strength * values (n, B)) has an effective sample size of half, by bisection."""
    low, high = torch.zeros(values.shape[1]), torch.full((values.shape[1],), 50.0)
    for _ in range(20):
        middle = (low + high) / 2
        effective = 1 / torch.softmax(middle * values, 0).square().sum(0)
        low, high = torch.where(effective > len(values) / 2, middle, low), torch.where(effective > len(values) / 2, high, middle)
    return low


@dataclass(frozen=True)
class LiDAR:
    """Guidance in closed form from `samples` look-aheads of `calls` Euler steps each, before the sampling (2602.03211).

    With clean look-aheads y_i of value r_i, the estimate moves by scale (E[y | x, reward] - E[y | x]), both posterior means over the
    y_i; distances are divided by the number of dimensions, or one y_i has all the weight.
    """

    samples: int
    calls: int = 3
    scale: float = 3.0
    strength: float = 3.0
    softness: float = 8.0
    baseline_check = True

    def budget(self, sigmas, finish=False):
        nfe = self.samples * self.calls + 2 * (len(sigmas) - 1)
        return Budget(nfe, nfe, self.samples + selection_verifications(1, True, finish, False, False, False))

    def search(self, state):
        ahead = state.start(state.initial_noises(self.samples))
        for call in range(self.calls):
            time = state.sigmas[0] * (1 - call / self.calls)
            v = state.velocity(ahead, torch.full(ahead.shape[:2], time))
            ahead = ahead - state.sigmas[0] / self.calls * v
        scored = state.score_latents(ahead)
        values = state.values(scored)
        state.decide(0, scored, values, values.argmax(0, keepdim=True))
        x = state.start(state.initial_noises(1))
        for step in range(state.steps):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            v = state.velocity(x, state.times(x, step))
            if step + 1 < state.steps:
                near = -self.softness * (x - (1 - t) * ahead).square().flatten(2).mean(2) / (2 * t * t)
                moved = _mean(ahead, near + self.strength * values) - _mean(ahead, near)
                v = v - self.scale * moved / t
            x, _ = ODE()(x, v, t, s)
        start = state.start(state.initial_noises(1))
        return Outcome(x, None, finish_baseline(state, start, state.velocity(start, state.times(start, 0)), 0))


def _mean(points, logits):
    """The mean of `points` (n, B, d) with weights softmax of `logits` (n, B): (1, B, d)."""
    return (torch.softmax(logits, 0)[..., None] * points).sum(0, keepdim=True)


@dataclass(frozen=True)
class Rollover:
    """Children one by one until one is better than the estimate so far, in the last `searched` steps; what a step leaves of its
    `quota` goes to the next (2503.19385, 2512.08985). For one image at a time: each has an account of its own."""

    quota: int
    searched: int
    baseline_check = True

    def budget(self, sigmas, finish=False):
        steps = len(sigmas) - 1
        check = self.searched
        verifications = 1 + self.quota * self.searched + selection_verifications(1, True, finish, False, False, False)
        return Budget(steps + self.searched * (self.quota - 1) + check, steps + check, verifications)

    def search(self, state):
        x = state.start(state.initial_noises(1))
        v = state.velocity(x, state.times(x, 0))
        first, spare = state.steps - 1 - self.searched, torch.zeros(len(state.keys))
        incumbent: Any = None
        kernel = OU(math.sqrt(2))
        for step in range(state.steps):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            if not first <= step < state.steps - 1:
                x, _ = ODE()(x, v, t, s)
                v = state.velocity(x, state.times(x, step + 1)) if step + 1 < state.steps else None
                continue
            if step == first:
                baseline, incumbent = (x, v, step), state.score_latents(x - t * v)
            quota = self.quota + spare
            most = int(quota.max())
            children, _ = kernel(x, v, t, s, state.noises(most, "child", step))
            velocities = state.velocity(children, state.times(children, step + 1))
            scored = state.score_latents(children - s * velocities)
            values = state.values(scored)
            tried = torch.arange(most)[:, None] < quota
            before = incumbent.scores["reward"]  # of the study's one verifier; values belong to one cohort
            better = (scored.scores["reward"] > before) & tried
            first_better = better.float().argmax(0)
            best = values.masked_fill(~tried, -torch.inf).argmax(0)
            chosen = torch.where(better.any(0), first_better, best)[None]
            paid = torch.where(better.any(0), first_better + 1.0, quota)
            # Only what each image would have tried is paid; the rest was run to keep the batch together.
            state.nfe += float(paid.mean()) - most
            state.verifications += float(paid.mean()) - most
            spare, incumbent = quota - paid, scored.take(chosen)
            x, v = take(children, chosen), take(velocities, chosen)
        return Outcome(x, None, finish_baseline(state, *baseline))


@dataclass(frozen=True)
class GlobalTrimming:
    """`starts` noises each have `children` at every step, and the best `starts` of all of them go on; each start keeps at
    least one in the first half of the steps, for diversity (DOG-Trim, 2511.22242)."""

    starts: int
    children: int
    baseline_check = True

    def budget(self, sigmas, finish=False):
        steps = len(sigmas) - 1
        nfe = self.starts + self.starts * self.children * (steps - 1) + steps - 1
        finalists = selection_verifications(self.starts, True, finish, False, False, False)
        return Budget(nfe, nfe, self.starts * self.children * (steps - 1) + finalists)

    def search(self, state):
        kernel = OU(math.sqrt(2))
        x = state.start(state.initial_noises(self.starts))
        v = state.velocity(x, state.times(x, 0))
        baseline = x[:1], v[:1], 0
        for step in range(state.steps - 1):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            parents = torch.arange(self.starts).repeat_interleave(self.children)
            children, _ = kernel(x[parents], v[parents], t, s, state.noises(len(parents), "child", step))
            velocities = state.velocity(children, state.times(children, step + 1))
            scored = state.score_latents(children - s * velocities)
            values = state.values(scored)
            if step < state.steps / 2:
                own = values.unflatten(0, (self.starts, self.children)).argmax(1)
                index = own + torch.arange(self.starts)[:, None] * self.children
            else:
                index = values.argsort(0, descending=True)[: self.starts]
            state.decide(step, scored, values, index)
            x, v = take(children, index), take(velocities, index)
        x, _ = ODE()(x, v, state.sigmas[-2], 0.0)
        return Outcome(x, None, finish_baseline(state, *baseline))


@dataclass(frozen=True)
class RewardGradient:
    """One trajectory whose clean estimate moves by `strength` along the reward's gradient through it (after FMRG, 2604.27147).

    `reward(images)` must be differentiable, and so the model and the decoder; a backward pass is counted as two calls.
    """

    reward: Callable
    strength: float = 1.0
    baseline_check = True

    def budget(self, sigmas, finish=False):
        steps = len(sigmas) - 1
        nfe = steps + 2 * (steps - 1) + steps - 1
        return Budget(nfe, nfe, selection_verifications(1, True, finish, False, False, False))

    def search(self, state):
        x = state.start(state.initial_noises(1))
        for step in range(state.steps):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                v = state.velocity(leaf, state.times(leaf, step))
                value = self.reward((leaf - t * v).flatten(0, 1)).sum()
                gradient = torch.autograd.grad(value, leaf)[0] if step + 1 < state.steps else torch.zeros_like(leaf)
            v = v.detach()
            if step == 0:
                baseline = x, v, step
            if step + 1 < state.steps:
                state.nfe += 2
                direction = gradient / gradient.norm(dim=-1, keepdim=True).clamp(min=1e-12)
                v = v - self.strength * direction / t
            x, _ = ODE()(x, v, t, s)
        return Outcome(x, None, finish_baseline(state, *baseline))
