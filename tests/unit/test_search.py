"""The searches on a Gaussian mixture whose velocity is exact."""

import itertools
from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.kernels import CPS, Relabel, ZeroDrift
from comfyui_fluxir.fluxir_core.flow.noise import keyed_noise
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, flux_sigmas
from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch
from comfyui_fluxir.fluxir_core.searches.look_ahead import Coarse
from comfyui_fluxir.fluxir_core.searches.particles import SMC, Halving
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import search
from comfyui_fluxir.fluxir_core.searches.state import SearchState
from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch
from comfyui_fluxir.fluxir_core.searches.task import Task
from comfyui_fluxir.fluxir_core.searches.trajectories import Trajectories
from comfyui_fluxir.training.studies.gaussian_mixture import GaussianMixture

from .mixture_search import MIXTURE, NOISE, UNIFORM, baseline, task


def test_the_mixtures_velocity_carries_noise_to_data():
    noise = torch.randn(4000, 16, generator=torch.Generator().manual_seed(5))
    x, data = euler(MIXTURE.velocity, noise, flux_sigmas(100, 0)), MIXTURE.sample(4000)
    torch.testing.assert_close(x.mean(0), data.mean(0), atol=0.1, rtol=0)
    assert MIXTURE.log_density(x).mean().item() == pytest.approx(MIXTURE.log_density(data).mean().item(), abs=0.5)


@pytest.mark.parametrize(
    "algorithm",
    [
        EvolutionarySearch(1, 0),
        EvolutionarySearch(1, 3, rounds=()),
        StepwiseSearch(0),
        StepwiseSearch(4, window=0),
        SMC(1),
        Halving(1),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_nothing_to_search_is_the_baseline_bit_for_bit(algorithm):
    assert torch.equal(search(task(), NOISE, UNIFORM, algorithm).latents, baseline())


@pytest.mark.parametrize("kernel", [ZeroDrift(0), Relabel(0)], ids=lambda k: k.name)
def test_no_perturbation_is_the_baseline_bit_for_bit(kernel):
    assert torch.equal(search(task(), NOISE, UNIFORM, EvolutionarySearch(1, 3, kernel=kernel)).latents, baseline())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_raises_the_reward(name):
    found = search(task(), NOISE, UNIFORM, PRESETS[name])
    gain = MIXTURE.reward(found.latents) - MIXTURE.reward(baseline())
    assert gain.mean() > 0.8 and (gain > 0.1).float().mean() > 0.75
    if PRESETS[name].baseline_check:
        assert (gain[torch.tensor(found.report["winner"]) < 0].abs() < 1e-4).all()  # the baseline itself, not near it
        assert gain.min() > -1e-4


def test_the_best_so_far_never_falls_under_full_look_ahead():
    for name in ("paper", "figure", "evosearch"):
        log = search(task(), NOISE, UNIFORM, PRESETS[name]).report["log"]
        best = torch.tensor([[max(scores) for scores in entry["scores"]["reward"]] for entry in log])
        assert (best[1:] >= best[:-1] - 1e-5).all()


@pytest.mark.parametrize("shift", [0, 1.15])
def test_quick_reaches_the_paper_and_balanced_passes_it_without_leaving_the_data(shift):
    """In 64 dimensions, where zero_drift's extra noise has most room to show; at FLUX's shift as well."""
    sigmas = flux_sigmas(25, shift)
    mixture, noise = GaussianMixture(64), torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    world = Task(mixture.velocity, lambda x: x, lambda x: {"reward": mixture.reward(x)})
    base = mixture.log_density(euler(mixture.velocity, noise, sigmas)).mean()
    found = {name: search(world, noise, sigmas, PRESETS[name]).latents for name in ("paper", "quick", "balanced")}
    reward, held_out = ({name: judge(x).mean() for name, x in found.items()} for judge in (mixture.reward, mixture.held_out))
    change = {name: mixture.log_density(x).mean() - base for name, x in found.items()}
    assert reward["quick"] > reward["paper"] - 0.05 and change["quick"] > -1 and change["paper"] < -10
    assert reward["balanced"] > reward["paper"] + 0.3 and held_out["balanced"] > held_out["paper"] + 0.3
    assert change["balanced"] > change["paper"] / 4


def test_halving_that_keeps_all_is_best_of_n():
    kept = search(task(), NOISE, UNIFORM, Halving(6, keep=1.0))
    best = search(task(), NOISE, UNIFORM, EvolutionarySearch(6, 0))
    torch.testing.assert_close(kept.latents, best.latents)


def test_an_image_does_not_depend_on_its_neighbors():
    for searched in [*PRESETS.values(), StepwiseSearch(5, 0.8, first_improvement=True)]:
        together = search(task(), NOISE, UNIFORM, searched).latents
        alone = torch.cat([search(task(), NOISE[i : i + 1], UNIFORM, searched, keys=[i]).latents for i in range(12)])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_more_candidates_keep_the_first_ones_noise():
    assert torch.equal(keyed_noise((4,), 0, 1, "mutant", 5, 2), keyed_noise((4,), 0, 1, "mutant", 5, 2))
    assert not torch.equal(keyed_noise((4,), 0, 1, "mutant", 5, 2), keyed_noise((4,), 0, 1, "mutant", 5, 3))
    few, many = (search(task(), NOISE, UNIFORM, EvolutionarySearch(1, n, rounds=(0.8,))).report["log"][0] for n in (2, 5))
    for small, large in zip(few["scores"]["reward"], many["scores"]["reward"]):
        assert small == pytest.approx(large[:3], abs=1e-4)


def test_the_same_search_twice_is_the_same_bit_for_bit_and_the_seed_matters():
    first, again, other = (search(task(), NOISE, UNIFORM, PRESETS["quick"], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.latents, again.latents) and first.report == again.report
    assert not torch.equal(first.latents, other.latents)


def test_relabelled_mutants_keep_to_the_data_where_zero_drift_leaves_it():
    mixture, noise = GaussianMixture(64), torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    world = Task(mixture.velocity, lambda x: x, lambda x: {"reward": mixture.reward(x)})
    base = mixture.log_density(euler(mixture.velocity, noise, UNIFORM)).mean()
    change = {
        kernel.name: mixture.log_density(search(world, noise, UNIFORM, EvolutionarySearch(kernel=kernel)).latents).mean() - base
        for kernel in (ZeroDrift(), Relabel())
    }
    assert change["relabel"] > change["zero_drift"] + 10 and change["relabel"] > -5


def test_stopping_returns_the_best_so_far():
    calls = itertools.count()

    def velocity(x, t):
        if next(calls) == 60:
            raise KeyboardInterrupt
        return MIXTURE.velocity(x, t)

    found = search(replace(task(), velocity=velocity), NOISE, UNIFORM, PRESETS["paper"], stopped_by=KeyboardInterrupt)
    assert found.report["stopped"] and len(found.report["log"]) >= 1
    assert MIXTURE.reward(found.latents).mean() >= MIXTURE.reward(baseline()).mean()


def test_stopping_before_anything_was_scored_is_passed_on():
    def velocity(x, t):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(replace(task(), velocity=velocity), NOISE, UNIFORM, PRESETS["paper"], stopped_by=KeyboardInterrupt)


def test_img2img_starts_from_its_own_state_and_time():
    image = MIXTURE.sample(12)
    sigmas = UNIFORM[12:]

    def start(noise):
        return sigmas[0] * noise + (1 - sigmas[0]) * image.repeat(len(noise) // 12, 1)

    base = euler(MIXTURE.velocity, start(NOISE), sigmas)
    assert torch.equal(search(task(start=start), NOISE, sigmas, EvolutionarySearch(1, 0)).latents, base)
    found = search(task(start=start), NOISE, sigmas, PRESETS["best_of_n"]).latents
    assert (MIXTURE.reward(found) >= MIXTURE.reward(base) - 1e-6).all()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: EvolutionarySearch(rounds=(0.2, 1.0)), "a round at 1.0 of the steps is past the last step"),
        (lambda: SMC(rounds=(2,)), "a round at 2 of the steps is past the last step"),
        (lambda: EvolutionarySearch(lineages=0), "use at least 1 lineage"),
        (lambda: Halving(0), "use at least 1"),
        (lambda: Halving(keep=0), "keep is 0"),
        (lambda: StepwiseSearch(kernel=Relabel()), "relabel leaves the sigma grid"),
        (lambda: Coarse(0), "calls is 0"),
        (lambda: CPS(1.5), "eta is 1.5; use a value from 0"),
        (lambda: search(task(), NOISE / 0, UNIFORM, PRESETS["quick"]), "the noise holds NaN or infinity"),
        (lambda: search(task(), NOISE, UNIFORM.flip(0), PRESETS["quick"]), "do not fall from 1 or less"),
        (lambda: search(task(), NOISE, UNIFORM * 14, PRESETS["quick"]), "use a flow-matching model's sigmas"),
        (lambda: search(task(), NOISE, UNIFORM[:5], PRESETS["quick"]), "a search needs the whole way to 0"),
        (lambda: search(task(), NOISE, UNIFORM[:1], PRESETS["quick"]), "hold no step"),
        (lambda: search(task(), NOISE, UNIFORM, PRESETS["quick"], keys=[1]), "1 keys for 12 images"),
        (lambda: search(replace(task(), score=lambda x: {"s": x}), NOISE, UNIFORM, PRESETS["quick"]), "give one an image"),
    ],
)
def test_bad_input_gets_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_paths_remember_only_what_they_come_back_to():
    run = SearchState(task(), NOISE, UNIFORM, 0, list(range(12)))
    trajectories = Trajectories.start(run, run.initial_noises(3), {4})
    end = trajectories.reach(run.steps)[0]
    assert set(trajectories.states) == {4, 25} and set(trajectories.velocities) == {4} and run.nfe == 3 * 25
    assert torch.equal(end[0], baseline())
