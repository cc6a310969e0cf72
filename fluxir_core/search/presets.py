"""The presets: named searches."""

import math

from ..flow.kernels import OU, Relabel, ZeroDrift
from .evolutionary import Lineages
from .look_ahead import FULL, Native
from .particles import SMC, Halving
from .selectors import Argmax, PerLineage, Tournament
from .stepwise import Greedy

SDE_STEP = OU(math.sqrt(2))
"""First-order sde-dpmsolver++: on the mixture study it finds more than a = 1 at the same cost and density."""


PRESETS = {
    "paper": Lineages(lineages=1, children=7, kernel=ZeroDrift(), look_ahead=FULL, selector=Argmax()),
    "paper_s9": Lineages(children=7, rounds=(0, 0.16, 0.32, 0.44, 0.6), kernel=ZeroDrift(), look_ahead=Native(9), guard=False),
    "figure": Lineages(lineages=5, children=5, kernel=ZeroDrift(), look_ahead=FULL, selector=PerLineage()),
    "best_of_n": Lineages(lineages=15, children=0, rounds=()),
    "evosearch": Lineages(
        lineages=5, children=5, rounds=(0, 0.4, 0.6), kernel=Relabel(), look_ahead=FULL, selector=Tournament(), beta=0.5
    ),
    "smc": SMC(particles=15),
    "halving": Halving(particles=24),
    "fast": Greedy(children=4, window=0.5, kernel=SDE_STEP),
    "best": Greedy(children=5, window=0.8, kernel=SDE_STEP, first_improvement=True),
}
"""Searches by name; the figures are for 25 uniform steps.

paper: ResFlow-Tuner's sampler with look-ahead to the end, 375 model calls. paper_s9: the same budget spent on five cohorts
with nine native steps of look-ahead, the first on the initial noise. figure: lineages of {self, mutant}, as the paper draws
it. best_of_n: the control of every claim at 375 calls. evosearch: elites and mutants from the initial noise on (2505.17618).
smc, halving: particles. fast: four children a step in the second half, 69 calls. best: from t = 0.8 on, children until one is
better, five a step on average and at most 120 calls.
"""
