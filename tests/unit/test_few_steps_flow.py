"""FLUX-IR's flow: exploration keeps the marginals, jump costs measure misses, and the chosen schedule is the cheapest."""

from functools import partial
from itertools import combinations

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.exploration import sample_gammas, trajectory
from comfyui_fluxir.fluxir_core.flow.few_step_sigmas import jump_costs, optimal_schedule, schedule_cost
from comfyui_fluxir.fluxir_core.flow.kernels import OU, Relabel, Renoise
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, flux_sigmas
from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch
from comfyui_fluxir.fluxir_core.searches.look_ahead import FULL, Student
from comfyui_fluxir.fluxir_core.searches.search import search
from comfyui_fluxir.fluxir_core.searches.task import Task


def gaussian(deviation):
    """The exact velocity of data N(0, deviation^2)."""

    def velocity(x, t):
        t = t.reshape(-1, *[1] * (x.ndim - 1))
        return x * (t - (1 - t) * deviation**2) / ((1 - t) ** 2 * deviation**2 + t**2)

    return velocity


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(seed):
    return partial(torch.randn, generator=seeded(seed))


@pytest.mark.parametrize("gamma", [0.0, 0.3, -0.3, 1.0])
def test_every_gamma_ends_in_the_same_distribution(gamma):
    noise = torch.randn(4, 5000, generator=seeded())
    states, _ = trajectory(gaussian(0.5), noise, flux_sigmas(200, 0), torch.full((4,), gamma), drawn(1))
    assert states[-1].std().item() == pytest.approx(0.5, rel=0.03)
    assert states[100].std().item() == pytest.approx((0.25 * 0.25 + 0.25) ** 0.5, rel=0.03)
    same = torch.corrcoef(torch.stack([states[-1].flatten(), noise.flatten()]))[0, 1].item()
    assert (same > 0.999) == (gamma == 0)  # the others have found other samples


def test_a_small_step_is_the_modulated_sdes():
    """z - h v - gamma^2 h z1_hat / (1 - t) + gamma sqrt(2 t h / (1 - t)) xi, up to the order of h."""
    x, gamma, t, h = torch.randn(3, 8, generator=seeded()), torch.tensor([0.1, 0.5, 1.0]), 0.6, 1e-4
    sigmas = torch.tensor([t, t - h], dtype=torch.float64)
    states, velocities = trajectory(gaussian(0.5), x, sigmas, gamma, drawn(1))
    v, xi, g = velocities[0], torch.randn(x.shape, generator=seeded(1)), gamma[:, None]
    expected = x - h * v - g**2 * h * (x + (1 - t) * v) / (1 - t) + g * (2 * t * h / (1 - t)) ** 0.5 * xi
    torch.testing.assert_close(states[1], expected, rtol=0, atol=3e-5)


def test_without_gamma_the_trajectory_is_eulers():
    x, sigmas = torch.randn(2, 8), flux_sigmas(5)
    states, velocities = trajectory(gaussian(0.5), x, sigmas)
    for i in range(5):
        torch.testing.assert_close(states[i + 1], states[i] + (sigmas[i + 1] - sigmas[i]) * velocities[i])
    torch.testing.assert_close(states, trajectory(gaussian(0.5), x, sigmas, torch.zeros(2))[0], rtol=1e-5, atol=1e-6)


def test_gammas_share_an_image_and_begin_with_the_ode():
    gammas = sample_gammas(1000, 5, generator=seeded())
    assert gammas.shape == (5, 1000) and not gammas[0].any()
    assert gammas[1:].std(0).mean().item() == pytest.approx(0.01, rel=0.15)
    assert 0.105 < gammas.abs().max().item() < 0.11 + 0.05


def test_a_straight_path_costs_nothing_and_a_bent_one_what_it_misses():
    z0, z1, sigmas = torch.randn(2, 3, 8), torch.randn(2, 3, 8), flux_sigmas(6)
    straight = trajectory(lambda x, t: z1 - z0, z1, sigmas)
    costs = jump_costs(*straight, sigmas)
    assert torch.isinf(costs[torch.tril(torch.ones(7, 7)).bool()]).all()
    assert costs[torch.triu(torch.ones(7, 7), 1).bool()].max() < 1e-6
    states, velocities = trajectory(gaussian(0.3), torch.randn(2, 8), sigmas)
    costs = jump_costs(states, velocities, sigmas)
    missed = states[1] + (sigmas[4] - sigmas[1]) * velocities[1] - states[4]
    assert costs[1, 4].item() == pytest.approx(missed.square().mean(1).sqrt().mean().item(), rel=1e-5)
    assert costs.diagonal(1).max() < 1e-6


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_the_schedule_is_the_cheapest_of_all(steps, start):
    costs = torch.rand(9, 9, dtype=torch.float64, generator=seeded(steps))
    costs[torch.tril(torch.ones(9, 9)).bool()] = torch.inf
    candidates = [(start, *between, 8) for between in combinations(range(start + 1, 8), steps - 1)]
    brute = min(candidates, key=lambda indices: schedule_cost(costs, indices))
    assert optimal_schedule(costs, steps, start) == list(brute)


@pytest.mark.parametrize("steps", [0, 9])
def test_a_schedule_needs_between_one_step_and_the_grids(steps):
    with pytest.raises(ValueError, match=f"{steps} steps on a grid of 8; use 1 to 8"):
        optimal_schedule(torch.zeros(9, 9), steps)


@pytest.mark.parametrize("kernel", [OU(), Relabel(), Renoise()])
@pytest.mark.parametrize("lineages", [1, 3])
@pytest.mark.parametrize("rounds", [(0, 0.4), (0.5,)])
def test_a_student_finishes_the_candidates_and_costs_the_slow_model_nothing(kernel, lineages, rounds):
    """As good a judge as the model itself, for the calls of its own few steps."""
    velocity, noise, grid, asked = gaussian(0.5), torch.randn(2, 8, generator=seeded()), flux_sigmas(10, 0), []

    def finish(x, sigmas, batch):
        asked.append((len(x), sigmas, batch))
        return euler(velocity, x, torch.linspace(sigmas[0], 0, 41))

    def look(ahead):
        schedule = EvolutionarySearch(lineages, 3, rounds, kernel, ahead)
        task = Task(velocity, lambda x: x, lambda x: {"likes": x[:, 0]})
        return search(task, noise, grid, schedule).report

    report = look(Student(finish, (0.9, 0.3, 0.0)))
    baseline_check, back = 10 - round(rounds[0] * 10), 3 * kernel.back * sum(map(bool, rounds))
    assert report["nfe"] == report["nfe_planned"] == lineages * 10 + baseline_check + back
    assert report["student_calls"] == sum(rows // batch * (len(sigmas) - 1) for rows, sigmas, batch in asked) > 0
    assert all(sigmas[1:] == [s for s in (0.9, 0.3, 0.0) if s < sigmas[0]] for _, sigmas, _ in asked)
    own = look(FULL)
    assert own["log"][0]["chosen"] == report["log"][0]["chosen"] and own["nfe"] > report["nfe"]


def test_a_students_schedule_ends_at_0():
    with pytest.raises(ValueError, match="do not end at 0; use the student's whole schedule"):
        Student(None, (0.9, 0.5))
