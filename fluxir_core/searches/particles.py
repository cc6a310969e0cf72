"""Search by particles that start from noises of their own: SMC resamples them, halving drops the worse half."""

from dataclasses import dataclass

import torch

from ..flow.kernels import ODE, OU, Kernel, check_keeps_time
from .final_selection import Outcome, selection_verifications
from .selectors import resample, take, top
from .state import finish_baseline
from .task import Budget


@dataclass(frozen=True)
class SMC:
    """Sequential Monte Carlo: at each round the particles are resampled by their clean estimate's value, then move by a kernel.

    The weights are exp(strength * (value - value at the last round)), so that their product follows the latest value.

    Args:
        particles: how many, 1 or more.
        rounds: where they are, as shares of the steps in [0, 1).
        kernel: by which particles move from the first round on, but for the last step; one that keeps to the sigmas.
        strength: 0 resamples all alike; the higher, the fewer survive.
        baseline_check: finish the baseline too and never return anything worse.

    Raises:
        ValueError: no particle, a round outside [0, 1), or a kernel that leaves the sigmas.
    """

    particles: int = 15
    rounds: tuple = (0.2, 0.4, 0.6, 0.8)
    kernel: Kernel = OU()
    strength: float = 3.0
    baseline_check: bool = True

    def __post_init__(self):
        _check("SMC", self.particles, self.rounds)
        check_keeps_time("SMC", self.kernel)

    def budget(self, sigmas, finish=False):
        steps, rounds = len(sigmas) - 1, _round_steps(self.rounds, len(sigmas) - 1)
        moving = self.particles > 1 and bool(rounds)
        nfe = self.particles * steps + (steps - 1 - rounds[0] if self.baseline_check and moving else 0)
        verifications = self.particles * len(rounds) if moving else 0
        verifications += selection_verifications(self.particles, self.baseline_check, finish, False, False, not moving)
        return Budget(nfe, nfe, verifications)

    def search(self, state):
        rounds = _round_steps(self.rounds, state.steps) if self.particles > 1 else []
        x = state.start(state.initial_noises(self.particles))
        baseline, before = None, torch.zeros(x.shape[:2])
        for step in range(state.steps):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            v = state.velocity(x, state.times(x, step))
            if step in rounds:
                if baseline is None and self.baseline_check:
                    baseline = x[:1], v[:1], step
                cohort = state.score_latents(x - t * v)
                values = state.values(cohort)
                index = resample(values - before, self.strength, state.generators("resample", step))
                state.decide(step, cohort, values, index)
                known = torch.where(values > -torch.inf, values, before)  # a round that refuses everyone weighs nobody
                x, v, before = take(x, index), take(v, index), take(known, index)
            noisy = rounds and step >= rounds[0] and step + 1 < state.steps
            kernel = self.kernel if noisy else ODE()
            x, _ = kernel(x, v, t, s, state.noises(self.particles, "move", step) if noisy else None)
        if baseline is None:
            return Outcome(x, None, x[:1], baseline_is_first=not rounds)
        return Outcome(x, None, finish_baseline(state, *baseline))


@dataclass(frozen=True)
class Halving:
    """Successive halving: at each round the particles with the best clean estimate go on, by the ODE.

    The baseline, particle 0, always goes on with at least one rival: it is the baseline check's measure.

    Args:
        particles: how many, 1 or more.
        rounds: where they are, as shares of the steps in [0, 1).
        keep: the share that goes on at a round, in (0, 1]; 1 is best of N.
        baseline_check: never return anything worse than the baseline.

    Raises:
        ValueError: no particle, a round outside [0, 1), or a share outside (0, 1].
    """

    particles: int = 26
    rounds: tuple = (0.4, 0.6, 0.8)
    keep: float = 0.5
    baseline_check: bool = True

    def __post_init__(self):
        _check("Halving", self.particles, self.rounds)
        if not 0 < self.keep <= 1:
            raise ValueError(f"Halving: keep is {self.keep}; use a share above 0, at most 1.")

    def _alive(self, steps):
        """Particles alive in each step."""
        alive, counts, rounds = self.particles, [], _round_steps(self.rounds, steps)
        for step in range(steps):
            counts.append(alive)
            if step in rounds:
                alive = self._survivors(alive)
        return counts, alive

    def _survivors(self, alive):
        """How many of `alive` particles go on: the baseline, and at least one rival of it."""
        return max(min(alive, 2), int(alive * self.keep))

    def budget(self, sigmas, finish=False):
        steps = len(sigmas) - 1
        alive, finalists = self._alive(steps)
        scored = [alive[step] for step in _round_steps(self.rounds, steps) if alive[step] > 1 and self.keep < 1]
        verifications = sum(scored) + selection_verifications(finalists, self.baseline_check, finish, False, False, True)
        return Budget(sum(alive), sum(alive), verifications)

    def search(self, state):
        x = state.start(state.initial_noises(self.particles))
        rounds = _round_steps(self.rounds, state.steps)
        for step in range(state.steps):
            t, s = state.sigmas[step], state.sigmas[step + 1]
            v = state.velocity(x, state.times(x, step))
            if step in rounds and len(x) > 1 and self.keep < 1:
                cohort = state.score_latents(x - t * v)
                values = state.values(cohort)
                immune = values.clone()
                immune[0] = torch.inf
                index = top(immune, self._survivors(len(x)))
                state.decide(step, cohort, values, index)
                x, v = take(x, index), take(v, index)
            x, _ = ODE()(x, v, t, s)
        return Outcome(x, None, x[:1], baseline_is_first=True)


def _check(name, particles, rounds):
    if particles < 1:
        raise ValueError(f"{name}: {particles} particles; use at least 1.")
    if outside := [share for share in rounds if not 0 <= share < 1]:
        raise ValueError(f"{name}: a round at {outside[0]} of the steps is past the last step; use shares in [0, 1).")


def _round_steps(rounds, steps):
    return sorted({min(round(share * steps), steps - 1) for share in rounds})
