"""The search that is best known within a cost: how many children, at which steps, with how much noise, for any sigmas."""

import math
from dataclasses import dataclass

from ..flow.kernels import OU
from .stepwise import StepwiseSearch

SHARE = 0.33
"""Of the steps, SHARE sqrt(times - 1) are searched: few with many children and many with few both lose."""
WIDE = 0.85
"""Sigma above which a search begins early, where less noise keeps more of what was chosen."""


@dataclass(frozen=True)
class WithinBudget:
    """A stepwise search that costs at most `times` the baseline's model calls on the sigmas it is given.

    `on(sigmas)` is that search. Of S steps the last b before the final one are searched with n children each, which costs
    S + n b calls, the baseline check included; n is at least 2, so a budget for less than that is the baseline. The numbers were
    chosen on the development mixtures of `fluxir results frontier`, for 8, 12 and 25 steps and shifts 0 and 1.15.
    """

    times: float = 3.0
    baseline_check = True

    def __post_init__(self):
        if self.times < 1:
            raise ValueError(f"WithinBudget: {self.times} times the baseline's calls; use at least 1.")

    def on(self, sigmas):
        """The StepwiseSearch for `sigmas` (S + 1,)."""
        steps = len(sigmas) - 1
        most, extra = steps - 1, math.floor((self.times - 1) * steps + 1e-9)
        searched = math.ceil(min(1.0, SHARE * math.sqrt(self.times - 1)) * most)
        children = max(2, extra // max(searched, 1))
        searched = min(most, extra // children)
        if searched < 1:
            return StepwiseSearch(children=0)
        first = float(sigmas[most - searched])
        return StepwiseSearch(children, first, OU(1.0 if first > WIDE else math.sqrt(2)))

    def budget(self, sigmas, finish=False):
        return self.on(sigmas).budget(sigmas, finish)
