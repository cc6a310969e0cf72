"""The final selection: what is returned is never worse than the baseline, whatever the verifiers say."""

import itertools
from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.searches.final_selection import Outcome, duels_won, select_final
from comfyui_fluxir.fluxir_core.searches.particles import SMC, Halving
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import search
from comfyui_fluxir.fluxir_core.searches.state import SearchState
from comfyui_fluxir.fluxir_core.searches.task import ScoredCandidates
from comfyui_fluxir.fluxir_core.verify.aggregate import mean_z, rank_sum
from comfyui_fluxir.fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble

from .mixture_search import MIXTURE, NOISE, UNIFORM, baseline, task


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
