"""Search by contests at chosen steps: survivors and mutants compete on a look-ahead, plain ODE steps lie between.

ResFlow-Tuner's sampler, its figure's variant, best of N and EvoSearch are settings of this one search.
"""

from dataclasses import dataclass, field

import torch

from ..flow.kernels import ZeroDrift, evolve_noise
from .final_selection import Outcome, contest_verifications
from .look_ahead import FULL
from .selectors import Argmax
from .task import Budget, Measured
from .trajectories import Paths


@dataclass(frozen=True)
class Lineages:
    """`lineages` members walk the grid; at each round `children` mutants join the contest and `lineages` survive.

    rounds: where the contests are, as shares of the steps in [0, 1); shares that fall on one step are one round.
    kernel: how a mutant is made of its parent's state; at step 0 it is `evolve_noise` with `beta`.
    look_ahead: what the contest is decided on. selector: who is parent, who survives.
    guard: finish the plain sample too and never return anything worse.
    """

    lineages: int = 1
    children: int = 7
    rounds: tuple = (0.2, 0.4, 0.6, 0.8)
    kernel: object = ZeroDrift()
    look_ahead: object = FULL
    selector: object = field(default_factory=Argmax)
    beta: float = 1.0
    guard: bool = True

    def __post_init__(self):
        if self.lineages < 1 or self.children < 0:
            raise ValueError(
                f"Lineages: {self.lineages} lineages with {self.children} children; use at least 1 lineage and 0 children."
            )
        if outside := [share for share in self.rounds if not 0 <= share < 1]:
            raise ValueError(f"Lineages: a round at {outside[0]} of the steps is past the last step; use shares in [0, 1).")

    def round_steps(self, steps):
        """Grid indices of the rounds on a grid of `steps` steps."""
        return sorted({min(round(share * steps), steps - 1) for share in self.rounds}) if self.children else []

    def budget(self, sigmas, finish=False):
        """The exact Budget on the grid `sigmas`; `finish`: the finalists have a decoder of their own."""
        steps, rounds, look = len(sigmas) - 1, self.round_steps(len(sigmas) - 1), self.look_ahead
        nfe, verifications, known = self.lineages * steps, 0, False
        for r in rounds:
            nfe += self.children * (look.cost(r, steps) + (self.kernel.back if r else 0))
            nfe += self.lineages * look.incumbent_cost
            verifications += self.children + (0 if known else self.lineages)
            known = look.exact(r, steps)
        if self.guard and rounds:
            nfe += steps - look.walked(rounds[0], steps)
        verifications += contest_verifications(
            self.lineages, self.guard, finish, known, bool(rounds) and look.exact(rounds[0], steps), not rounds
        )
        return Budget(nfe, nfe, verifications)

    def search(self, run):
        """Walks `run`'s grid; returns an Outcome."""
        rounds = self.round_steps(run.steps)
        paths = Paths.start(run, run.initial_noises(self.lineages), {r - 1 for r in rounds})  # mutants leave from there
        first = torch.zeros(1, len(run.keys), dtype=torch.long)
        plain = measured = plain_measured = None
        for r in rounds:
            exact = self.look_ahead.exact(r, run.steps)
            if measured is None:
                measured = run.measure(self.look_ahead(paths, r))
            if plain is None:
                plain, plain_measured = paths.take(first), measured.take(first) if exact else None
            parents = self.selector.parents(run.values(measured), self.children, run.generators("parents", r))
            mutants = self._mutants(run, paths.take(parents), r)
            cohort = Measured.join(measured, run.measure(self.look_ahead(mutants, r)))
            values = run.values(cohort)
            survivors = self.selector.survivors(values, self.lineages)
            run.decide(r, cohort, values, survivors, parents=parents.T.tolist())
            paths = Paths.join(paths, mutants).take(survivors)
            measured = cohort.take(survivors) if exact else None
        latents = paths.reach(run.steps)[0]
        if plain is None:
            return Outcome(latents, measured, latents[:1], None, plain_is_first=True)
        return Outcome(latents, measured, plain.reach(run.steps)[0] if self.guard else None, plain_measured)

    def _mutants(self, run, parents, r):
        """Mutants of `parents`, one each, at grid `r`."""
        z = run.noises(self.children, "mutant", r)
        if r == 0:
            return Paths.start(run, evolve_noise(parents.noise, self.beta, z), parents.kept)
        x, t = parents.step(self.kernel, r, z)
        return Paths(run, parents.noise, {r - self.kernel.back: (x, t)}, parents.kept)
