"""The search algorithm nodes: every widget reaches the search it names, and Budget Plan says what it will cost."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.kernels import CPS, KERNELS, ODE, OU, FlowGRPO, Relabel, Renoise, Rotate, ZeroDrift
from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch
from comfyui_fluxir.fluxir_core.searches.look_ahead import FULL, Coarse, Native
from comfyui_fluxir.fluxir_core.searches.particles import SMC, Halving
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost
from comfyui_fluxir.fluxir_core.searches.selectors import Argmax, PerLineage, Tournament
from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch

SIGMAS = torch.linspace(1, 0, 26)
EVOLUTION = dict(
    parents=2,
    children=2,
    rounds=3,
    first_round=0.2,
    last_round=0.6,
    noise_method="replaced noise",
    strength=0.7,
    look_ahead="large steps",
    look_ahead_steps=4,
    survival="best of all",
    baseline_check=False,
)


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import search_algorithms

    return search_algorithms


@pytest.fixture(scope="module")
def budget(comfy):
    """(nfe, seconds, report) of the Budget Plan node."""
    from comfyui_fluxir.nodes.budget_plan import BudgetPlan

    return lambda *inputs, **options: BudgetPlan.execute(*inputs, **options).result


def made(node, **widgets):
    return node.execute(**widgets).result[0]


def test_an_evolutionary_search_holds_what_its_widgets_say(nodes):
    found = made(nodes.EvolutionarySearchAlgorithm, **EVOLUTION)
    assert (found.lineages, found.children, found.baseline_check) == (2, 2, False)
    assert found.rounds == pytest.approx((0.2, 0.4, 0.6)) and found.kernel == Rotate(0.7) and found.look_ahead == Coarse(4)
    for look, expected in (("to the end", FULL), ("normal steps", Native(4))):
        assert made(nodes.EvolutionarySearchAlgorithm, **{**EVOLUTION, "look_ahead": look}).look_ahead == expected
    for survival, selector in (("best of all", Argmax), ("child against parent", PerLineage), ("tournament", Tournament)):
        assert isinstance(made(nodes.EvolutionarySearchAlgorithm, **{**EVOLUTION, "survival": survival}).selector, selector)


def test_no_rounds_is_best_of_n(nodes):
    found = made(nodes.EvolutionarySearchAlgorithm, **{**EVOLUTION, "parents": 15, "rounds": 0})
    assert estimate_cost(found, SIGMAS)["nfe"] == 15 * 25


def test_every_kernel_can_be_chosen_and_strength_is_its_own_parameter(nodes):
    assert set(nodes.NOISE.values()) == set(KERNELS.values()) - {ODE}
    made = {nodes.make_kernel(name, 0.5) for name in nodes.NOISE}
    assert made == {OU(0.5), CPS(0.5), FlowGRPO(0.5), ZeroDrift(0.5), Relabel(0.5), Rotate(0.5), Renoise()}


def test_a_stepwise_search_holds_what_its_widgets_say(nodes):
    widgets = dict(
        children=3, window=0.6, noise_method="constant share", strength=0.2, first_improvement=True, baseline_check=False
    )
    assert made(nodes.StepwiseSearchAlgorithm, **widgets) == StepwiseSearch(3, 0.6, CPS(0.2), True, False)


def test_a_particle_search_holds_what_its_widgets_say(nodes):
    widgets = dict(particles=9, rounds=2, first_round=0.25, last_round=0.75, pressure=1.5, keep=0.4, baseline_check=False)
    assert made(nodes.ParticleSearchAlgorithm, method="resampling", **widgets) == SMC(
        9, (0.25, 0.75), strength=1.5, baseline_check=False
    )
    assert made(nodes.ParticleSearchAlgorithm, method="halving", **widgets) == Halving(9, (0.25, 0.75), 0.4, False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"first_round": 0.7}, "first round 0.7 is after the last 0.6; lower the first"),
        ({"look_ahead_steps": 0}, "calls is 0; use at least 1"),
        ({"survival": "child against parent", "children": 5}, "5 children for 2 parents"),
        ({"noise_method": "constant share", "strength": 1.5}, "strength is 1.5; constant share takes at most 1"),
    ],
)
def test_contradictions_are_refused_with_one_sentence(nodes, change, message):
    with pytest.raises(ValueError, match=f"^Evolutionary Search: .*{message}"):
        made(nodes.EvolutionarySearchAlgorithm, **{**EVOLUTION, **change})


def test_a_stepwise_search_names_itself(nodes):
    with pytest.raises(ValueError, match="^Stepwise Search: strength is 2; constant share takes at most 1"):
        made(
            nodes.StepwiseSearchAlgorithm,
            children=3,
            window=0.6,
            noise_method="constant share",
            strength=2.0,
            first_improvement=True,
            baseline_check=False,
        )


@pytest.mark.parametrize("name", PRESETS)
def test_the_budget_of_every_preset_is_the_planners(budget, name):
    calls, seconds, report = budget(SIGMAS, name)
    report, cost = json.loads(report), estimate_cost(PRESETS[name], SIGMAS)
    assert seconds == 0 and calls == report["model_calls"] == cost["nfe"] and report["preset"] == name
    assert (report["model_calls_at_least"], report["judged_images"]) == (cost["nfe_least"], cost["verifications"])


def test_an_algorithm_replaces_the_preset_and_timing_needs_both_inputs(budget):
    own = EvolutionarySearch(1, 2, (0.5,))
    assert budget(SIGMAS, "paper", search=own)[0] == estimate_cost(own, SIGMAS)["nfe"]
    with pytest.raises(ValueError, match="Budget Plan: timing a step needs both guider and latent_image"):
        budget(SIGMAS, "quick", latent_image={"samples": torch.zeros(1, 16, 8, 8)})
    with pytest.raises(ValueError, match="Budget Plan: the sigmas hold no step"):
        budget(SIGMAS[:1], "quick")


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.15, 3.0])
def test_our_sigmas_are_cores_simple_scheduler_bit_for_bit(comfy, shift):
    """Also where the steps do not divide the 10,000 sigmas that core chooses from."""
    import comfy.samplers
    from comfy.model_sampling import ModelSamplingFlux
    from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas

    sampling = ModelSamplingFlux()
    sampling.set_parameters(shift=shift)
    for steps in (*range(1, 70), 150, 999, 7000):
        core = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
        assert torch.equal(flux_sigmas(steps, shift), core), steps
