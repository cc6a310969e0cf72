"""Search by selection rounds at chosen steps: survivors and mutants compete on a look-ahead, plain ODE steps lie between.

ResFlow-Tuner's sampler, its figure's variant, best of N and EvoSearch are settings of this one search.
"""

from dataclasses import dataclass, field

import torch

from ..flow.kernels import Kernel, ZeroDrift, evolve_noise
from .final_selection import Outcome, selection_verifications
from .look_ahead import FULL, LookAhead
from .selectors import Argmax, Selector
from .task import Budget, ScoredCandidates
from .trajectories import Trajectories


@dataclass(frozen=True)
class EvolutionarySearch:
    """Members walk the grid; at each round mutants of them join the selection, and as many as before survive.

    Args:
        lineages: members that survive a round, 1 or more.
        children: mutants that join each round; 0 for no round at all.
        rounds: where they are, as shares of the steps in [0, 1); shares that fall on one step are one round.
        kernel: how a mutant is made of its parent's state; at step 0 it is `evolve_noise`.
        look_ahead: what a round is decided on.
        selector: who is parent, who survives.
        beta: of `evolve_noise`, the weight of the fresh noise, from 0 to 1; 1 is a fresh start.
        baseline_check: finish the baseline too and never return anything worse.

    Raises:
        ValueError: no lineage, `children` below 0, or a round outside [0, 1).
    """

    lineages: int = 1
    children: int = 7
    rounds: tuple = (0.2, 0.4, 0.6, 0.8)
    kernel: Kernel = ZeroDrift()
    look_ahead: LookAhead = FULL
    selector: Selector = field(default_factory=Argmax)
    beta: float = 1.0
    baseline_check: bool = True

    def __post_init__(self):
        if self.lineages < 1 or self.children < 0:
            raise ValueError(
                f"EvolutionarySearch: {self.lineages} lineages with {self.children} children; use at least 1 lineage and 0 children."
            )
        if outside := [share for share in self.rounds if not 0 <= share < 1]:
            raise ValueError(
                f"EvolutionarySearch: a round at {outside[0]} of the steps is past the last step; use shares in [0, 1)."
            )

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
        if self.baseline_check and rounds:
            nfe += steps - look.walked(rounds[0], steps)
        verifications += selection_verifications(
            self.lineages, self.baseline_check, finish, known, bool(rounds) and look.exact(rounds[0], steps), not rounds
        )
        return Budget(nfe, nfe, verifications)

    def search(self, state):
        """Walks `state`'s grid; returns an Outcome."""
        rounds = self.round_steps(state.steps)
        left_from = {r - 1 for r in rounds}  # where mutants leave from
        trajectories = Trajectories.start(state, state.initial_noises(self.lineages), left_from)
        first = torch.zeros(1, len(state.keys), dtype=torch.long)
        baseline = scored = baseline_scored = None
        for r in rounds:
            exact = self.look_ahead.exact(r, state.steps)
            if scored is None:
                scored = state.score_latents(self.look_ahead(trajectories, r))
            if baseline is None:
                baseline, baseline_scored = trajectories.take(first), scored.take(first) if exact else None
            parents = self.selector.parents(state.values(scored), self.children, state.generators("parents", r))
            mutants = self._mutants(state, trajectories.take(parents), r)
            cohort = ScoredCandidates.join(scored, state.score_latents(self.look_ahead(mutants, r)))
            values = state.values(cohort)
            survivors = self.selector.survivors(values, self.lineages)
            state.decide(r, cohort, values, survivors, parents=parents.T.tolist())
            trajectories = Trajectories.join(trajectories, mutants).take(survivors)
            scored = cohort.take(survivors) if exact else None
        latents = trajectories.reach(state.steps)[0]
        if baseline is None:
            return Outcome(latents, scored, latents[:1], None, baseline_is_first=True)
        return Outcome(latents, scored, baseline.reach(state.steps)[0] if self.baseline_check else None, baseline_scored)

    def _mutants(self, state, parents, r):
        """Mutants of `parents`, one each, at grid `r`."""
        z = state.noises(self.children, "mutant", r)
        if r == 0:
            return Trajectories.start(state, evolve_noise(parents.noise, self.beta, z), parents.kept)
        x, t = parents.step(self.kernel, r, z)
        return Trajectories(state, parents.noise, {r - self.kernel.back: (x, t)}, parents.kept)
