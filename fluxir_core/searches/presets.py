"""The presets: named searches."""

from ..flow.kernels import Relabel, ZeroDrift
from .evolutionary import EvolutionarySearch
from .look_ahead import FULL, Native
from .particles import SMC, Halving
from .selectors import Argmax, PerLineage, Tournament
from .within_budget import WithinBudget

PRESETS = {
    "quick": WithinBudget(3),
    "balanced": WithinBudget(5),
    "thorough": WithinBudget(15),
    "paper": EvolutionarySearch(lineages=1, children=7, kernel=ZeroDrift(), look_ahead=FULL, selector=Argmax()),
    "paper_s9": EvolutionarySearch(
        children=7, rounds=(0, 0.16, 0.32, 0.44, 0.6), kernel=ZeroDrift(), look_ahead=Native(9), baseline_check=False
    ),
    "figure": EvolutionarySearch(lineages=5, children=5, kernel=ZeroDrift(), look_ahead=FULL, selector=PerLineage()),
    "best_of_n": EvolutionarySearch(lineages=15, children=0, rounds=()),
    "evosearch": EvolutionarySearch(
        lineages=5, children=5, rounds=(0, 0.4, 0.6), kernel=Relabel(), look_ahead=FULL, selector=Tournament(), beta=0.5
    ),
    "smc": SMC(particles=15),
    "halving": Halving(particles=24),
}
"""Searches by name: first by what they may cost, on any sigmas, then the papers' own, whose figures are for 25 steps.

quick, balanced, thorough: at most 3, 5 and 15 times the baseline's calls, see `WithinBudget`; at 25 steps 73, 121 and 361.
paper: ResFlow-Tuner's sampler with look-ahead to the end, 375 calls. paper_s9: the same budget spent on five cohorts with
nine native steps of look-ahead, the first on the initial noise. figure: lineages of {self, mutant}, as the paper draws it.
best_of_n: the control of every claim at 375 calls. evosearch: elites and mutants from the initial noise on (2505.17618).
smc: 15 particles, resampled at four steps. halving: of 24 particles the worse half is dropped at each round.
"""
