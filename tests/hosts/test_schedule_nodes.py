"""The schedule nodes: every widget reaches the search it names, and Budget Plan says what it will cost."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow import PRESETS, plan
from comfyui_fluxir.fluxir_core.flow.greedy import Greedy
from comfyui_fluxir.fluxir_core.flow.kernels import CPS, KERNELS, ODE, OU, FlowGRPO, Relabel, Rotate
from comfyui_fluxir.fluxir_core.flow.lineages import Lineages
from comfyui_fluxir.fluxir_core.flow.particles import SMC, Halving
from comfyui_fluxir.fluxir_core.flow.paths import FULL, Coarse, Native
from comfyui_fluxir.fluxir_core.flow.selectors import Argmax, PerLineage, Tournament

SIGMAS = torch.linspace(1, 0, 26)
CONTEST = dict(
    lineages=2,
    children=2,
    rounds=3,
    first_round=0.2,
    last_round=0.6,
    kernel="rotate",
    strength=0.7,
    look_ahead="coarse steps",
    look_ahead_steps=4,
    survival="best of all",
    guard=False,
)


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import schedules

    return schedules


def made(node, **widgets):
    return node.execute(**widgets).result[0]


def test_a_contest_schedule_holds_what_its_widgets_say(nodes):
    found = made(nodes.ContestSchedule, **CONTEST)
    assert (found.lineages, found.children, found.guard) == (2, 2, False)
    assert found.rounds == pytest.approx((0.2, 0.4, 0.6)) and found.kernel == Rotate(0.7) and found.look_ahead == Coarse(4)
    for look, expected in (("to the end", FULL), ("native steps", Native(4))):
        assert made(nodes.ContestSchedule, **{**CONTEST, "look_ahead": look}).look_ahead == expected
    for survival, selector in (("best of all", Argmax), ("child against parent", PerLineage), ("tournament", Tournament)):
        assert isinstance(made(nodes.ContestSchedule, **{**CONTEST, "survival": survival}).selector, selector)


def test_no_rounds_is_best_of_n(nodes):
    found = made(nodes.ContestSchedule, **{**CONTEST, "lineages": 15, "rounds": 0})
    assert plan(found, SIGMAS)["nfe"] == 15 * 25


@pytest.mark.parametrize("name", [name for name in KERNELS if name != ODE.name])
def test_every_kernel_can_be_chosen_and_strength_is_its_own_parameter(nodes, name):
    kernel = nodes.make_kernel(name, 0.5)
    assert kernel.name == name
    if name != "renoise":
        assert kernel in (OU(0.5), CPS(0.5), FlowGRPO(0.5), Rotate(0.5), Relabel(0.5), KERNELS["zero_drift"](0.5))


def test_a_stepwise_schedule_holds_what_its_widgets_say(nodes):
    widgets = dict(children=3, window=0.6, kernel="cps", strength=0.2, first_improvement=True, guard=False)
    assert made(nodes.StepwiseSchedule, **widgets) == Greedy(3, 0.6, CPS(0.2), True, False)


def test_a_particle_schedule_holds_what_its_widgets_say(nodes):
    widgets = dict(particles=9, rounds=2, first_round=0.25, last_round=0.75, pressure=1.5, keep=0.4, guard=False)
    assert made(nodes.ParticleSchedule, method="smc", **widgets) == SMC(9, (0.25, 0.75), strength=1.5, guard=False)
    assert made(nodes.ParticleSchedule, method="halving", **widgets) == Halving(9, (0.25, 0.75), 0.4, False)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"first_round": 0.7}, "first round 0.7 is after the last 0.6; lower the first"),
        ({"look_ahead_steps": 0}, "calls is 0; use at least 1"),
        ({"survival": "child against parent", "children": 5}, "5 children for 2 lineages"),
        ({"kernel": "cps", "strength": 1.5}, "eta is 1.5"),
    ],
)
def test_contradictions_are_refused_with_one_sentence(nodes, change, message):
    with pytest.raises(ValueError, match=f"^Contest Schedule: .*{message}"):
        made(nodes.ContestSchedule, **{**CONTEST, **change})


def test_a_stepwise_schedule_names_itself(nodes):
    with pytest.raises(ValueError, match="^Stepwise Schedule: cps: eta is 2.0"):
        made(nodes.StepwiseSchedule, children=3, window=0.6, kernel="cps", strength=2.0, first_improvement=True, guard=False)


@pytest.mark.parametrize("name", PRESETS)
def test_the_budget_of_every_preset_is_the_planners(nodes, name):
    nfe, seconds, report = nodes.BudgetPlan.execute(SIGMAS, name).result
    report = json.loads(report)
    assert seconds == 0 and report.items() >= plan(PRESETS[name], SIGMAS).items() and nfe == report["nfe"]


def test_a_schedule_replaces_the_preset_and_timing_needs_both_inputs(nodes):
    own = Lineages(1, 2, (0.5,))
    assert nodes.BudgetPlan.execute(SIGMAS, "paper", schedule=own).result[0] == plan(own, SIGMAS)["nfe"]
    with pytest.raises(ValueError, match="Budget Plan: timing a step needs both guider and latent_image"):
        nodes.BudgetPlan.execute(SIGMAS, "fast", latent_image={"samples": torch.zeros(1, 16, 8, 8)})
    with pytest.raises(ValueError, match="Budget Plan: the sigmas hold no step"):
        nodes.BudgetPlan.execute(SIGMAS[:1], "fast")


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.15, 3.0])
def test_our_sigmas_are_cores_simple_scheduler_bit_for_bit(comfy, shift):
    """Also where the steps do not divide the 10,000 sigmas that core chooses from."""
    import comfy.samplers
    from comfy.model_sampling import ModelSamplingFlux
    from comfyui_fluxir.fluxir_core.flow import flux_sigmas

    sampling = ModelSamplingFlux()
    sampling.set_parameters(shift=shift)
    for steps in (*range(1, 70), 150, 999, 7000):
        core = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
        assert torch.equal(flux_sigmas(steps, shift), core), steps
