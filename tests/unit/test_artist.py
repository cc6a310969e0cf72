"""The artist as verifier: asked once about each cohort, obeyed, and replaced by the verifier behind where nobody answers."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch
from comfyui_fluxir.fluxir_core.searches.search import search
from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch
from comfyui_fluxir.fluxir_core.searches.summary import summarize
from comfyui_fluxir.fluxir_core.searches.task import Task
from comfyui_fluxir.fluxir_core.verify import artist as module
from comfyui_fluxir.fluxir_core.verify.artist import ArtistsChoice, Offer, Unanswered
from comfyui_fluxir.fluxir_core.verify.ensemble import Ensemble
from comfyui_fluxir.fluxir_core.verify.held_out import held_out_for
from comfyui_fluxir.training.studies.gaussian_mixture import GaussianMixture


class Bright:
    """A verifier that likes bright images."""

    name = "bright"

    def __call__(self, images, reference=None):
        return images.mean((1, 2, 3))


class Asked:
    """Somebody who takes the darkest, and what they were shown."""

    def __init__(self, answer=None):
        self.offers: list[Offer] = []
        self.answer = answer or (lambda offer: [min(range(len(offer.images)), key=lambda i: float(offer.images[i].sum()))])

    def __call__(self, offer):
        self.offers.append(offer)
        return self.answer(offer)


def gray(*levels):
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 6).clone()


def absent(_offer):
    raise Unanswered("Nobody was there")


def artist(ask, run=lambda: None):
    return ArtistsChoice(Ensemble([Bright()]), ask, run)


def test_the_artist_is_obeyed_and_the_rest_is_ordered_by_the_verifier():
    asked = Asked()
    choice = artist(asked)
    values = choice(gray(0.5, 0.1, 0.9, 0.7), gray(0.3))
    assert values.argmax() == 1 and values.argsort(descending=True).tolist() == [1, 2, 3, 0]
    (offer,) = asked.offers
    assert [int(image[0, 0, 0]) for image in offer.images] == [128, 26, 230, 178] and int(offer.degraded[0, 0, 0]) == 76
    assert offer.scores == [{"bright": pytest.approx(level)} for level in (0.5, 0.1, 0.9, 0.7)]
    assert choice.judges_fidelity(1).tolist() == [True]


def test_a_ranking_is_kept():
    assert artist(Asked(lambda _: [3, 0, 1, 2]))(gray(0.5, 0.1, 0.9, 0.7)).argsort(descending=True).tolist() == [3, 0, 1, 2]


def test_where_nobody_answers_the_verifier_decides_and_it_is_said():
    choice = artist(absent)
    images = gray(0.5, 0.1, 0.9)
    measured = choice.measure(images)
    assert torch.equal(choice.combine(measured), choice.inner.combine(measured))
    assert choice.judges_fidelity(1).tolist() == [False]
    assert choice.member_values(measured).keys() == {"bright"}
    assert choice.remarks() == ["Nobody was there, so ensemble decided."] and choice.remarks() == []


def test_what_was_offered_together_is_not_asked_again_in_one_run():
    run, asked = ["first"], Asked()
    choice = artist(asked, lambda: run[0])
    measured = choice.measure(gray(0.5, 0.1, 0.9))
    choice.combine(measured)
    pairs = {name: scores[[0, 1]] for name, scores in measured.items()}
    values = choice.combine(pairs)
    assert len(asked.offers) == 1 and values[1] > values[0]
    assert [own.tolist() for own in choice.member_values(pairs).values()] == [values.tolist()]
    run[0] = "second"
    choice(gray(0.5, 0.1))
    assert len(asked.offers) == 2 and len(asked.offers[1].images) == 2


def test_a_new_candidate_is_a_new_question():
    asked = Asked()
    choice = artist(asked)
    choice(gray(0.5, 0.1))
    choice(gray(0.5, 0.1, 0.05))
    assert [len(offer.images) for offer in asked.offers] == [2, 3]


def test_the_same_image_is_offered_once_and_ranks_once():
    asked = Asked()
    values = artist(asked)(gray(0.5, 0.1, 0.5, 0.1))
    assert len(asked.offers[0].images) == 2 and values.tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("levels", [(0.5,), (0.5, 0.5), (0.5, float("nan"))])
def test_where_there_is_no_choice_nobody_is_asked(levels):
    asked = Asked()
    artist(asked)(gray(*levels))
    assert not asked.offers


def test_nan_is_not_shown_and_stays_refused():
    class Refusing(Bright):
        def __call__(self, images, reference=None):
            return images.mean((1, 2, 3)).nan_to_num(nan=-torch.inf)

    values = ArtistsChoice(Ensemble([Refusing()]), Asked())(gray(0.5, float("nan"), 0.1))
    assert values[1] == -torch.inf and values.argmax() == 2


def test_the_images_of_a_batch_are_asked_about_one_by_one():
    asked = Asked()
    choice = artist(asked)
    measured = {name: scores.unflatten(0, (2, 2)) for name, scores in choice.measure(gray(0.5, 0.2, 0.1, 0.9)).items()}
    values = choice.combine(measured)  # the candidates of the first image are 0.5 and 0.1, of the second 0.2 and 0.9
    assert [[int(image[0, 0, 0]) for image in offer.images] for offer in asked.offers] == [[128, 26], [51, 230]]
    assert values.argmax(0).tolist() == [1, 0]


def test_a_batch_of_which_one_image_is_chosen_for_leaves_the_other_to_the_verifier():
    def once(offer):
        if len(asked.offers) > 1:
            raise Unanswered("Nobody was there")
        return [1]

    asked = Asked(once)
    choice = artist(asked)
    measured = {name: scores.unflatten(0, (2, 2)) for name, scores in choice.measure(gray(0.9, 0.8, 0.1, 0.2)).items()}
    votes = choice.member_values(measured)
    assert choice.judges_fidelity(2).tolist() == [True, False]
    assert votes["bright"].argmax(0).tolist() == [1, 0] and torch.equal(votes["bright"][:, 1], measured["bright"][:, 1])


def test_an_images_duels_count_for_that_image():
    choice = artist(Asked())
    measured = choice.measure(gray(0.5, 0.1, 0.7, 0.7))
    pairs = {name: scores.unflatten(0, (2, 2)).T for name, scores in measured.items()}  # the second image has no choice
    duels = {name: torch.cat([scores, scores.flip(0)], 1) for name, scores in pairs.items()}
    choice.combine(duels)
    assert choice.judges_fidelity(2).tolist() == [True, False]


def test_images_are_kept_until_they_are_forgotten_or_another_run_begins():
    run, asked = ["first"], Asked()
    choice = artist(asked, lambda: run[0])
    degraded = torch.rand(3, 4, 6)
    choice(gray(0.5, 0.1, 0.9), degraded)
    assert choice.kept_bytes() == 4 * 72  # three candidates and one degraded image
    Ensemble([choice]).forget()
    assert choice.kept_bytes() == 0
    choice(gray(0.1, 0.5), degraded)
    assert len(asked.offers) == 1 and choice.kept_bytes() == 3 * 72  # it was decided in this run
    run[0] = "second"
    choice.measure(gray(0.7))
    assert choice.kept_bytes() == 72


def test_what_is_kept_is_bound_by_its_bytes(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 3 * 72)
    asked = Asked()
    choice = artist(asked)
    choice(gray(0.2, 0.5, 0.1, 0.9), gray(0.3))
    assert choice.kept_bytes() == 3 * 72 and [int(image[0, 0, 0]) for image in asked.offers[0].images] == [26, 230]


def test_images_of_other_shapes_are_other_images():
    asked = Asked()
    choice = artist(asked)
    measured = [choice.measure(image) for image in (torch.zeros(1, 3, 4, 6), torch.zeros(1, 3, 6, 4))]
    choice.combine({name: torch.cat([own[name] for own in measured]) for name in measured[0]})
    assert len(asked.offers[0].images) == 2


def test_the_verifier_behind_is_not_held_out():
    from comfyui_fluxir.fluxir_core.verify.piqe import PIQE

    held_out = held_out_for(ArtistsChoice(Ensemble([PIQE()]), absent))
    assert held_out is not None and held_out.name != "piqe"


MIXTURE = GaussianMixture(12)
NOISE = torch.randn(1, 12, generator=torch.Generator().manual_seed(0))


def searched(ask, algorithm):
    choice = artist(ask, lambda: "run")
    task = Task(
        MIXTURE.velocity,
        lambda x: torch.sigmoid(x).reshape(-1, 3, 2, 2),
        choice.measure,
        choice.combine,
        choice.member_values,
    )
    return search(task, NOISE, flux_sigmas(10), algorithm), choice


@pytest.mark.parametrize(
    ("algorithm", "questions"),
    [
        (EvolutionarySearch(lineages=4, children=0, rounds=()), 1),
        (EvolutionarySearch(lineages=1, children=3, rounds=(0.5,)), 1),
        (StepwiseSearch(children=3, window=0.5), None),
    ],
)
def test_a_search_returns_what_the_artist_chose(algorithm, questions):
    asked = Asked()
    result, _ = searched(asked, algorithm)
    assert questions is None or len(asked.offers) == questions
    darkest = min(float(image.sum()) for image in asked.offers[-1].images)
    found = (torch.sigmoid(result.latents) * 255).round().sum()
    assert float(found) == pytest.approx(darkest, abs=1)


def test_a_search_that_nobody_attends_is_that_of_the_verifier_alone():
    algorithm = EvolutionarySearch(lineages=2, children=3, rounds=(0.3, 0.6))
    absent_result, choice = searched(absent, algorithm)
    inner = Ensemble([Bright()])
    task = Task(
        MIXTURE.velocity, lambda x: torch.sigmoid(x).reshape(-1, 3, 2, 2), inner.measure, inner.combine, inner.member_values
    )
    assert torch.equal(absent_result.latents, search(task, NOISE, flux_sigmas(10), algorithm).latents)
    (remark,) = choice.remarks()
    assert remark.startswith("Nobody was there, so ensemble decided")
    report = {**absent_result.report, "remarks": ["No browser was there, so ensemble decided."]}
    assert summarize(report) == "No browser was there, so ensemble decided."


def test_the_number_of_a_candidate_is_no_score_in_a_report():
    result, _ = searched(Asked(), EvolutionarySearch(lineages=2, children=2, rounds=(0.5,)))
    assert result.report["log"] and result.report["finalist_scores"].keys() == {"bright"}
    assert "candidate" not in json.dumps([result.report["log"], result.report["finalist_scores"]])
    assert "candidate" not in summarize(result.report)


def test_what_to_do_follows_who_decided():
    def missed(_offer):
        raise Unanswered("Nobody was there", "Ask again.")

    choice = artist(missed)
    choice(gray(0.5, 0.1))
    choice(gray(0.5, 0.2))
    assert choice.remarks() == ["Nobody was there, so ensemble decided 2 times. Ask again."]
