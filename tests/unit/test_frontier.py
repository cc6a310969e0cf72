"""The proving ground of the searches: its rivals pay what they plan, its mixtures and its table are what they say."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost, search
from comfyui_fluxir.fluxir_core.searches.task import Task
from comfyui_fluxir.training.studies import frontier
from comfyui_fluxir.training.studies.frontier_rivals import FunnelSMC, GlobalTrimming, LiDAR, RewardGradient, Rollover
from comfyui_fluxir.training.studies.gaussian_mixture import GaussianMixture

MIXTURE = GaussianMixture(16)
NOISE = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
RIVALS = [FunnelSMC(6, 2), LiDAR(4), Rollover(4, 6), GlobalTrimming(2, 2), RewardGradient(MIXTURE.reward)]


def found(algorithm, steps=12):
    task = Task(MIXTURE.velocity, lambda x: x, lambda x: {"reward": MIXTURE.reward(x)})
    return search(task, NOISE, flux_sigmas(steps), algorithm)


@pytest.mark.parametrize("algorithm", RIVALS, ids=lambda rival: type(rival).__name__)
def test_rivals_pay_what_they_plan_and_find_something(algorithm):
    result, planned = found(algorithm), estimate_cost(algorithm, flux_sigmas(12))
    counted = result.report["nfe"], result.report["verifications"]
    if planned["adaptive"]:
        assert planned["nfe_least"] <= counted[0] <= planned["nfe"] and counted[1] <= planned["verifications"]
    else:
        assert counted == (planned["nfe"], planned["verifications"])
    assert sum(result.report["gain"]) > 0


def test_no_method_costs_more_than_the_budget_of_its_column():
    for steps, times in ((8, 1.5), (12, 3), (25, 15)):
        sigmas = flux_sigmas(steps)
        methods = frontier.methods(sigmas, times, MIXTURE.reward)
        assert frontier.SHIPPED in methods and len(methods) >= 2
        assert all(estimate_cost(algorithm, sigmas)["nfe"] <= times * steps for algorithm in methods.values())


def test_no_mixture_is_both_for_choosing_presets_and_for_the_table():
    assert not set(frontier.DEVELOPMENT) & set(frontier.HELD_OUT) and len(frontier.HELD_OUT) == 3


def test_the_curved_reward_has_a_top_where_the_linear_one_goes_on():
    data = MIXTURE.sample(4000)
    values, held_out = MIXTURE.curved_reward(data), MIXTURE.curved_held_out(data)
    assert values.max() <= 0
    path = MIXTURE.mean + torch.linspace(0, 20, 101)[:, None] * MIXTURE.reward_direction / MIXTURE.reward_direction.norm()
    top = MIXTURE.curved_reward(path).argmax()
    assert 0 < top < 100 and MIXTURE.reward(path).argmax() == 100
    assert 0.7 < torch.corrcoef(torch.stack([values, held_out]))[0, 1] < 0.999


def row(method, gain, budget=5, density=-1.0):
    return {
        "shift": 1.15, "steps": 8, "budget": budget, "method": method, "case": 0, "nfe": 8 * budget,
        "gain": [gain, gain + 0.2], "held_out": [gain / 2, gain / 2], "log_density": [density, density],
    }  # fmt: skip


def test_regret_is_a_share_of_the_best_methods_gain_and_gradients_do_not_count():
    rows = [row("shipped", 1.7), row("best of n", 1.9), row(frontier.NEEDS_GRADIENT, 5.0)]
    assert frontier.regret(rows, "shipped") == pytest.approx(0.1) and frontier.regret(rows, "best of n") == 0


def test_the_table_says_what_share_of_the_papers_loss_the_shipped_search_has():
    text = frontier.table([row("shipped", 1.7), row("ResFlow-Tuner", 1.5, 15, -10.0)])
    assert "| shipped | 1.80 ± 0.10 / 0.85 / -1.0 | 0% |" in text
    assert "| 1.15 | 8 | 1.80 ± 0.10 / 0.85 / -1.0 | 1.60 ± 0.10 / 0.75 / -10.0 | 10% |" in text
