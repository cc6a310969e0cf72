"""The presets: named searches."""

import math

from ..flow.kernels import OU, Relabel, ZeroDrift
from .evolutionary import EvolutionarySearch
from .look_ahead import FULL, Native
from .particles import SMC, Halving
from .selectors import Argmax, PerLineage, Tournament
from .stepwise import StepwiseSearch

SDE_STEP = OU(math.sqrt(2))
"""First-order sde-dpmsolver++: in the study on a Gaussian mixture it finds more than a = 1 at the same cost and density."""

PRESETS = {
    "quick": StepwiseSearch(children=4, window=0.5, kernel=SDE_STEP),
    "balanced": StepwiseSearch(children=5, window=0.8, kernel=SDE_STEP, first_improvement=True),
    "thorough": SMC(particles=15),
    "paper": EvolutionarySearch(lineages=1, children=7, kernel=ZeroDrift(), look_ahead=FULL, selector=Argmax()),
    "paper_s9": EvolutionarySearch(
        children=7, rounds=(0, 0.16, 0.32, 0.44, 0.6), kernel=ZeroDrift(), look_ahead=Native(9), baseline_check=False
    ),
    "figure": EvolutionarySearch(lineages=5, children=5, kernel=ZeroDrift(), look_ahead=FULL, selector=PerLineage()),
    "best_of_n": EvolutionarySearch(lineages=15, children=0, rounds=()),
    "evosearch": EvolutionarySearch(
        lineages=5, children=5, rounds=(0, 0.4, 0.6), kernel=Relabel(), look_ahead=FULL, selector=Tournament(), beta=0.5
    ),
    "halving": Halving(particles=24),
}
"""Searches by name, first by what they cost, then by the papers' names; the figures are for 25 uniform steps.

quick: four children a step in the second half, 69 model calls. balanced: from t = 0.8 on, children until one is better, five
a step on average and at most 120 calls. thorough: 15 particles by SMC, the best of the searches of about 375 calls.
paper: ResFlow-Tuner's sampler with look-ahead to the end, 375 calls. paper_s9: the same budget spent on five cohorts with
nine native steps of look-ahead, the first on the initial noise. figure: lineages of {self, mutant}, as the paper draws it.
best_of_n: the control of every claim at 375 calls. evosearch: elites and mutants from the initial noise on (2505.17618).
halving: of 24 particles the worse half is dropped at each round.
"""
