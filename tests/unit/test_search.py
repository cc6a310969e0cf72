"""The searches on a Gaussian mixture whose velocity is exact."""

import itertools
from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.execution.micro_batches import MicroBatches
from comfyui_fluxir.fluxir_core.execution.oom import is_out_of_memory
from comfyui_fluxir.fluxir_core.flow.kernels import CPS, Relabel, Renoise, ZeroDrift
from comfyui_fluxir.fluxir_core.flow.noise import keyed_noise
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, flux_sigmas
from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch
from comfyui_fluxir.fluxir_core.searches.final_selection import Outcome, duels_won, select_final
from comfyui_fluxir.fluxir_core.searches.look_ahead import FULL, TWEEDIE, Coarse, Native
from comfyui_fluxir.fluxir_core.searches.particles import SMC, Halving
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost, search
from comfyui_fluxir.fluxir_core.searches.selectors import PerLineage
from comfyui_fluxir.fluxir_core.searches.state import SearchState
from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch
from comfyui_fluxir.fluxir_core.searches.task import ScoredCandidates, Task
from comfyui_fluxir.fluxir_core.searches.trajectories import Trajectories
from comfyui_fluxir.fluxir_core.searches.within_budget import WithinBudget
from comfyui_fluxir.fluxir_core.verify.aggregate import mean_z, rank_sum
from comfyui_fluxir.fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble
from comfyui_fluxir.training.studies.gaussian_mixture import GaussianMixture

UNIFORM = flux_sigmas(25, 0)
MIXTURE = GaussianMixture(16)
NOISE = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))


def task(**changes):
    return Task(MIXTURE.velocity, lambda x: x, lambda x: {"reward": MIXTURE.reward(x)}, **changes)


def baseline():
    return euler(MIXTURE.velocity, NOISE, UNIFORM)


def test_the_mixtures_velocity_carries_noise_to_data():
    noise = torch.randn(4000, 16, generator=torch.Generator().manual_seed(5))
    x, data = euler(MIXTURE.velocity, noise, flux_sigmas(100, 0)), MIXTURE.sample(4000)
    torch.testing.assert_close(x.mean(0), data.mean(0), atol=0.1, rtol=0)
    assert MIXTURE.log_density(x).mean().item() == pytest.approx(MIXTURE.log_density(data).mean().item(), abs=0.5)


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
    ids=str,
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


class Broken:
    """Adversarial verifiers."""

    constant = staticmethod(lambda x: {"reward": torch.zeros(len(x))})
    nan = staticmethod(lambda x: {"reward": torch.full((len(x),), float("nan"))})
    some_nan = staticmethod(lambda x: {"reward": torch.where(x[:, 0] > 0, MIXTURE.reward(x), float("nan"))})
    reversed = staticmethod(lambda x: {"reward": -MIXTURE.reward(x), "other": -MIXTURE.held_out(x)})


@pytest.mark.parametrize("score", ["constant", "nan"])
@pytest.mark.parametrize("name", [name for name, algorithm in PRESETS.items() if algorithm.baseline_check])
def test_verifiers_that_decide_nothing_leave_the_baseline(name, score):
    found = search(replace(task(), score=getattr(Broken, score)), NOISE, UNIFORM, PRESETS[name])
    torch.testing.assert_close(found.latents, baseline())


@pytest.mark.parametrize("score", ["some_nan", "reversed"])
@pytest.mark.parametrize("combine", [mean_z, rank_sum])
@pytest.mark.parametrize("name", [name for name, algorithm in PRESETS.items() if algorithm.baseline_check])
def test_the_baseline_check_holds_under_adversarial_verifiers(name, score, combine):
    judge = getattr(Broken, score)
    found = search(replace(task(), score=judge, combine=combine), NOISE, UNIFORM, PRESETS[name]).latents
    base = baseline()
    verdicts = [
        (mine.nan_to_num(-torch.inf), before.nan_to_num(-torch.inf))
        for mine, before in zip(judge(found).values(), judge(base).values())
    ]
    changed = ((found - base).abs().amax(1) > 1e-4).nonzero()[:, 0]
    assert len(changed) > 3 and found.isfinite().all()
    votes = sum((mine > before).int() - (mine < before).int() for mine, before in verdicts)[changed]
    assert (votes >= (1 if len(verdicts) == 1 else 0)).all()  # of two that disagree the value decides


def members(**scores):
    """{verifier: (n, 1)} of lists."""
    return {name: torch.tensor(values)[:, None] for name, values in scores.items()}


def test_a_duel_compares_two_alone_and_a_majority_of_members_decides():
    """Of three finalists and the baseline, last: the first wins 2:1 though its value is least, the second loses 1:2."""
    scores = members(a=[1.0, -9.0, 0.0, 0.0], b=[1.0, -9.0, 0.0, 0.0], c=[-9.0, 9.0, 1.0, 0.0])
    values = torch.tensor([[-5.0], [5.0], [1.0], [0.0]])
    assert duels_won(task(), scores, values)[:, 0].tolist() == [True, False, True]


def test_a_tie_of_members_goes_to_the_higher_value():
    scores = members(a=[1.0, 1.0, 0.0], b=[-1.0, -2.0, 0.0])
    for value, wins in ((0.1, True), (0.0, False), (-0.1, False)):
        assert duels_won(task(), scores, torch.tensor([[value], [-1.0], [0.0]]))[:, 0].tolist() == [wins, False]


def test_natural_image_verifier_has_one_vote_whatever_it_is_made_of():
    """Its four scores are tied 2:2, and its value, by consistency, prefers the finalist: so does the duel."""
    scores = members(
        niqe=[-5.0, -4.0], coherent_gradient=[0.1, 0.2], spectral_slope=[0.0, -0.1], consistency=[-0.5, -0.9], veto_nan=[0.0, 0.0]
    )
    ensemble = DefaultEnsemble()
    judged = replace(task(), combine=ensemble.combine, member_values=ensemble.member_values)
    values = ensemble.combine(scores)
    assert values[0] > values[1] and duels_won(judged, scores, values)[0, 0]
    assert not duels_won(task(), scores, values.flip(0))[0, 0]


def test_in_a_cohort_and_alone_what_is_returned_is_never_worse():
    """Ranks depend on the company: of four, the first has 2.33 and the last 2, but alone the first loses 1:2."""
    inner = Ensemble([Named("a"), Named("b"), Named("c")], rank_sum, name="inner")
    judged = replace(task(), combine=inner.combine, member_values=lambda found: {"inner": inner.combine(found)})
    scores = members(a=[3.0, 2.0, 1.0, 0.0], b=[2.0, 1.0, 0.0, 3.0], c=[2.0, 1.0, 0.0, 3.0])
    assert inner.combine(scores)[:, 0].argmax() == 0 and select_final_of(scores, judged) == -1
    turned = {name: values.flip(0) for name, values in scores.items()}  # now the last, alone, would lose
    assert inner.combine(turned)[:, 0].argmax() == 3 and select_final_of(turned, judged) == -1


class Named:
    def __init__(self, name):
        self.name = name


def select_final_of(scores, judged):
    """The winner among finalists with `scores` {verifier: (n + 1, 1)}, the baseline last."""
    latents = torch.arange(float(len(next(iter(scores.values())))))[:, None, None]
    everyone = ScoredCandidates(scores, latents, latents)
    count = len(latents) - 1
    first, last = (everyone.take(torch.tensor(index)[:, None]) for index in (list(range(count)), [count]))
    state = SearchState(judged, torch.zeros(1, 1), UNIFORM, 0, [0])
    return select_final(state, Outcome(first.latents, first, last.latents, last), True).winner.item()


@pytest.mark.parametrize("name", PRESETS)
def test_where_everyone_is_refused_the_baseline_is_returned_and_said(name):
    refused = replace(task(), combine=lambda scores: torch.full_like(scores["reward"], -torch.inf))
    found = search(refused, NOISE, UNIFORM, PRESETS[name])
    assert len(found.report["remarks"]) == 12 and "Image 3: the verifier refused every candidate: this" in (
        found.report["remarks"][3].replace("the first one is returned", "this")
    )
    if PRESETS[name].baseline_check:
        torch.testing.assert_close(found.latents, baseline())
        assert found.report["winner"] == [-1] * 12 and found.report["score"] == [None] * 12


def test_a_refused_candidate_never_wins_though_its_value_is_higher_than_a_refused_baselines():
    scores = members(a=[-torch.inf, 1.0, -torch.inf])
    combine = Ensemble([Named("a")]).combine
    assert select_final_of(scores, replace(task(), combine=combine)) == 1
    scores = members(a=[-torch.inf, -torch.inf, -torch.inf], b=[5.0, 6.0, 0.0])
    combine = Ensemble([Named("a"), Named("b")]).combine
    assert select_final_of(scores, replace(task(), combine=combine)) == -1


def test_a_round_that_refuses_everyone_does_not_blind_the_next():
    """The particles keep the weights of the last round that could judge."""
    rounds = itertools.count()

    def combine(scores):
        values = mean_z(scores)
        return torch.full_like(values, -torch.inf) if next(rounds) == 1 else values

    found = search(task(combine=combine), NOISE, UNIFORM, SMC(15)).report
    _, second, third, *_ = found["log"]
    assert second["chosen"] == [list(range(15))] * 12  # nobody is preferred
    assert all(len(set(chosen)) < 12 for chosen in third["chosen"])


@pytest.mark.parametrize("name", PRESETS)
def test_without_any_score_the_baseline_is_returned_with_one_sentence(name):
    found = search(replace(task(), score=lambda x: {}), NOISE, UNIFORM, PRESETS[name])
    assert found.report["remarks"][0].startswith("No verifier gave a score, so nothing was chosen")
    if PRESETS[name].baseline_check:
        torch.testing.assert_close(found.latents, baseline())


def test_the_report_shows_the_gain_of_a_verifier_that_was_not_searched_on():
    world = task(held_out=lambda x: {"held_out": MIXTURE.held_out(x)})
    found = search(world, NOISE, UNIFORM, PRESETS["quick"])
    report, told = found.report, found.report["held_out"]["held_out"]
    assert told["score"] == pytest.approx(MIXTURE.held_out(found.latents).tolist(), abs=1e-4)
    assert told["baseline_score"] == pytest.approx(MIXTURE.held_out(baseline()).tolist(), abs=1e-4)
    assert told["gain"] == pytest.approx([a - b for a, b in zip(told["score"], told["baseline_score"])], abs=1e-5)
    assert report["gain"] == pytest.approx([a - b for a, b in zip(report["score"], report["baseline_score"])], abs=1e-5)
    assert all(len(entry["held_out"]["held_out"]) == 12 for entry in report["log"])
    assert torch.equal(found.latents, search(task(), NOISE, UNIFORM, PRESETS["quick"]).latents)  # the search does not see it


def test_a_winner_stays_near_the_degraded_input():
    """A finalist whose fidelity is worse than the baseline's by more than the margin is refused."""
    base = baseline()

    def fidelity(images):
        return -100 * (images - base.repeat(len(images) // len(base), 1)).abs().mean(1)

    found = search(task(fidelity=fidelity), NOISE, UNIFORM, PRESETS["quick"])
    torch.testing.assert_close(found.latents, base)
    assert set(found.report["winner"]) == {-1}


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


def test_halving_always_leaves_the_baseline_a_rival():
    found = search(task(), NOISE, UNIFORM, Halving(15, rounds=(0.2, 0.4, 0.6, 0.8)))
    assert [len(entry["chosen"][0]) for entry in found.report["log"]] == [7, 3, 2, 2]
    assert (MIXTURE.reward(found.latents) > MIXTURE.reward(baseline())).any()


def test_a_verifier_that_fails_in_some_rounds_only_does_not_end_the_search():
    calls = itertools.count()

    class Moody:
        name = "moody"

        def __call__(self, images, reference=None):
            if next(calls) % 2:
                raise RuntimeError("not today")
            return MIXTURE.held_out(images)

    class Reward:
        name = "reward"

        def __call__(self, images, reference=None):
            return MIXTURE.reward(images)

    ensemble = Ensemble([Ensemble([Moody()], name="inner"), Reward()])
    world = replace(task(), score=ensemble.measure, combine=ensemble.combine)
    found = search(world, NOISE, UNIFORM, PRESETS["paper"]).latents
    assert MIXTURE.reward(found).mean() > MIXTURE.reward(baseline()).mean() + 0.8


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


def test_candidates_are_called_a_few_at_a_time_and_fewer_when_memory_runs_out():
    sizes = []

    def doubled(rows):
        sizes.append(len(rows))
        if len(rows) > 4:
            raise torch.cuda.OutOfMemoryError("pretended")
        return {"always": 2 * rows, **({"sometimes": rows} if rows[0] == 0 else {})}

    calls, rows = MicroBatches(2, 5), torch.arange(10.0)
    found = calls(doubled, rows)
    assert sizes == [10, 4, 4, 2] and calls.size == 2
    assert torch.equal(found["always"], 2 * rows)
    torch.testing.assert_close(found["sometimes"], rows.where(rows < 4, torch.nan), equal_nan=True)
    calls.size = 1
    with pytest.raises(torch.cuda.OutOfMemoryError):
        calls(lambda *_: doubled(torch.zeros(5)), rows)


def test_torchs_ways_to_run_out_of_memory_are_told_from_other_errors():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError())
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert not is_out_of_memory(torch.AcceleratorError("CUDA error: an illegal memory access"))
    assert not is_out_of_memory(RuntimeError("out of memory"))
