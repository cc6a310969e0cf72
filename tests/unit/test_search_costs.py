"""What a search costs: the planner, the presets' budgets, and what a budget allows."""

import itertools

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.kernels import Renoise, ZeroDrift
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch
from comfyui_fluxir.fluxir_core.searches.look_ahead import FULL, TWEEDIE, Coarse, Native
from comfyui_fluxir.fluxir_core.searches.particles import SMC, Halving
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost, search
from comfyui_fluxir.fluxir_core.searches.selectors import PerLineage
from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch
from comfyui_fluxir.fluxir_core.searches.within_budget import WithinBudget

from .mixture_search import NOISE, UNIFORM, baseline, task


def test_the_papers_budget():
    assert estimate_cost(PRESETS["paper"], UNIFORM) == {
        "steps": 25,
        "nfe": 375,
        "nfe_least": 375,
        "verifications": 29,
        "adaptive": False,
    }
    assert estimate_cost(PRESETS["paper_s9"], UNIFORM)["nfe"] == estimate_cost(PRESETS["best_of_n"], UNIFORM)["nfe"] == 375
    assert estimate_cost(PRESETS["figure"], UNIFORM)["nfe"] == estimate_cost(PRESETS["evosearch"], UNIFORM)["nfe"] == 375


@pytest.mark.parametrize("name, times", [("quick", 3), ("balanced", 5), ("thorough", 15)])
def test_a_preset_of_a_cost_stays_within_it_and_spends_it_on_any_sigmas(name, times):
    assert PRESETS[name] == WithinBudget(times)
    for steps, shift in itertools.product((1, 2, 3, 8, 12, 25, 50), (0, 1.15)):
        for sigmas in (flux_sigmas(steps, shift), 0.6 * flux_sigmas(steps, shift)):
            planned = estimate_cost(PRESETS[name], sigmas)
            assert planned["nfe"] <= times * steps and not planned["adaptive"]
            assert planned["nfe"] > 0.9 * times * steps or steps == 1


def test_a_budget_too_small_for_two_children_is_the_baseline():
    assert torch.equal(search(task(), NOISE, UNIFORM, WithinBudget(1.05)).latents, baseline())
    assert estimate_cost(WithinBudget(1.08), UNIFORM)["nfe"] == 27
    with pytest.raises(ValueError, match="0.5 times the baseline's calls; use at least 1"):
        WithinBudget(0.5)


def test_the_report_says_which_search_a_budget_became():
    found = search(task(), NOISE[:1], flux_sigmas(25), PRESETS["quick"]).report["algorithm"]
    assert found["type"] == "StepwiseSearch" and found["children"] == 4


ALGORITHMS = [
    *(
        EvolutionarySearch(
            lineages,
            children,
            rounds,
            kernel,
            look,
            PerLineage() if lineages == children else EvolutionarySearch().selector,
            baseline_check=baseline_check,
        )
        for lineages, children, rounds, kernel, look, baseline_check in itertools.product(
            (1, 3),
            (0, 3),
            ((), (0, 0.3), (0.5, 0.52, 0.9)),
            (ZeroDrift(), Renoise()),
            (FULL, TWEEDIE, Native(4), Coarse(2)),
            (True, False),
        )
    ),
    *(
        SMC(n, rounds, baseline_check=baseline_check)
        for n, rounds, baseline_check in itertools.product((1, 4), ((), (0.3, 0.7)), (True, False))
    ),
    *(
        Halving(n, rounds, keep, baseline_check)
        for n, rounds, keep, baseline_check in itertools.product((1, 7), ((), (0, 0.5)), (0.3, 1), (True, False))
    ),
    *(
        StepwiseSearch(n, window, baseline_check=baseline_check)
        for n, window, baseline_check in itertools.product((0, 1, 3), (0, 0.5, 1), (True, False))
    ),
]


@pytest.mark.parametrize("steps", [1, 2, 11])
@pytest.mark.parametrize("shift", [0, 1.15])
def test_the_planner_counts_what_the_searches_pay(steps, shift):
    sigmas = flux_sigmas(steps, shift)
    for finish in (None, lambda x: x):
        for algorithm in [*ALGORITHMS, *PRESETS.values()]:
            planned = estimate_cost(algorithm, sigmas, finish is not None)
            report = search(task(finish=finish), NOISE[:2], sigmas, algorithm).report
            if planned["adaptive"]:
                assert planned["nfe_least"] <= report["nfe"] <= planned["nfe"], algorithm
                assert report["verifications"] <= planned["verifications"], algorithm
            else:
                counted = report["nfe"], report["verifications"]
                assert counted == (planned["nfe"], planned["verifications"]), algorithm
