"""An artist's taste is learned from choices, says how far it can be trusted, and travels in a file."""

import json
import math

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble
from comfyui_fluxir.fluxir_core.verify.taste import (
    CERTAIN,
    Choice,
    Taste,
    TasteEnsemble,
    choice_line,
    learn_taste,
    pair_agreement,
    read_choices,
    taste_from_json,
)

TRUE = {"a": 2.0, "b": -1.0, "c": 0.0}


def choices_of(utility, count, size=4, seed=0, scale=1.0):
    """`count` choices of the best of `size` candidates with random scores."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        scores = [dict(zip(TRUE, generator.normal(size=3) * [1, scale, 1])) for _ in range(size)]
        found.append(Choice(scores, [int(np.argmax([utility(own, generator) for own in scores]))]))
    return found


def linear(own, generator):
    """Utility with the model's own noise: the best of two is then chosen as Bradley and Terry say."""
    return sum(weight * own[name] for name, weight in TRUE.items()) + generator.gumbel()


def coin(own, generator):
    return generator.random()


def test_a_linear_taste_is_recovered():
    taste = learn_taste(choices_of(linear, 2000, size=2))
    weights = {name: weight / scale for name, weight, scale in zip(taste.verifiers, taste.weights, taste.scales)}
    assert weights == pytest.approx(TRUE, abs=0.15)


def test_the_unit_of_a_verifier_makes_no_difference():
    one, other = (learn_taste(choices_of(linear, 50, scale=scale)) for scale in (1.0, 1000.0))
    # The artist of the second kind weighs b a thousand times as much as well: only what is learned per usual difference counts.
    assert np.abs(one.weights).max() < 10 and np.abs(other.weights).max() < 10
    shifted = [
        Choice([{name: 1000 * value + 7 for name, value in own.items()} for own in choice.scores], choice.ranking)
        for choice in choices_of(linear, 50)
    ]
    assert learn_taste(shifted).weights == pytest.approx(one.weights, rel=1e-6)
    assert learn_taste(shifted).agreement == pytest.approx(one.agreement)


def test_the_stated_agreement_is_that_on_choices_it_has_not_seen():
    taste = learn_taste(choices_of(linear, 300))
    unseen = choices_of(linear, 1000, seed=1)
    judge = TasteEnsemble(Ensemble([Named(name) for name in TRUE]), taste)
    assert taste.agreement == pytest.approx(pair_agreement(judge, unseen), abs=2.5 * taste.error)
    assert taste.knows


@pytest.mark.parametrize(("shared", "who"), [(False, "you"), (True, "the person who taught it")])
def test_its_sentence_says_whom_it_knows(shared, who):
    assert Taste(("a",), (1.0,), (1.0,), 20, 0.7, 0.04, 0.05).sentence(shared) == (
        f"It picks the image {who} preferred in 70 % of new comparisons (± 8 %)."
    )
    whose = "the taste of the person who taught it" if shared else "your taste"
    assert Taste(("a",), (1.0,), (1.0,), 9, 0.5, 0.1, 0.1).sentence(shared) == (
        f"It knows nothing about {whose} yet: 9 choices, and it predicts 50 % of them."
    )


@pytest.mark.parametrize("choices", [[], choices_of(linear, 5)])
def test_from_few_choices_it_claims_nothing(choices):
    taste = learn_taste(choices)
    assert not taste.knows and "knows nothing about your taste yet" in taste.sentence() and "at least 8" in taste.sentence()


def test_a_coin_has_no_taste():
    claims = [learn_taste(choices_of(coin, count, seed=seed)) for count in (8, 40) for seed in range(50)]
    assert np.mean([taste.agreement for taste in claims]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([taste.knows for taste in claims]) <= 0.02


def test_a_coins_agreement_spreads_further_than_independent_guesses_but_far_less_than_what_is_asked_for():
    coins = [learn_taste(choices_of(coin, 40, seed=seed)) for seed in range(100)]
    assert coins[0].coin == pytest.approx((5 / 36 / 40) ** 0.5)  # the place among three others: 0, 1, 2 or 3 of 3
    assert 1 < np.std([taste.agreement for taste in coins]) / coins[0].coin < CERTAIN / 2


class Named:
    """A verifier of the name `name` whose score is an image's mean."""

    def __init__(self, name):
        self.name = name

    def __call__(self, images, reference=None):
        return images.mean((1, 2, 3))


def tasteful(weights, knows=True):
    return Taste(tuple(weights), tuple(weights.values()), (1.0,) * len(weights), 20 if knows else 3, 0.9, 0.05, 0.08)


def test_it_judges_as_the_artist_and_not_as_the_verifier():
    inner = Ensemble([Named("a"), Named("b")])
    measured = {"a": torch.tensor([0.0, 1.0, 2.0]), "b": torch.tensor([5.0, 0.0, 1.0])}
    judge = TasteEnsemble(inner, tasteful({"a": -1.0, "b": 0.0}))
    assert judge.combine(measured).tolist() == [1.0, 0.0, -1.0]  # log-odds around the cohort's mean
    assert list(judge.member_values(measured)) == ["my_taste"]


def test_while_it_knows_nothing_the_connected_verifier_judges():
    inner = DefaultEnsemble()
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    measured = inner.measure(images, images[0])
    judge = TasteEnsemble(inner, tasteful({"niqe": -1.0}, knows=False))
    assert torch.equal(judge.combine(measured), inner.combine(measured))
    assert judge.member_values(measured).keys() == inner.member_values(measured).keys()


def test_what_the_verifier_refuses_stays_refused():
    judge = TasteEnsemble(Ensemble([Named("a")]), tasteful({"a": 1.0}))
    assert judge.combine({"a": torch.tensor([-torch.inf, 1.0, 2.0])}).tolist() == [-torch.inf, -0.5, 0.5]


def test_a_cohorts_columns_do_not_see_each_other():
    judge = TasteEnsemble(Ensemble([Named("a")]), tasteful({"a": 1.0}))
    a = torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    assert judge.combine({"a": a}).tolist() == [[-1.0, -10.0], [1.0, 10.0]]


def test_a_score_that_was_not_measured_tells_nothing_and_is_missed(caplog):
    judge = TasteEnsemble(Ensemble([Named("a")]), tasteful({"a": 1.0, "aesthetic": 5.0}))
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    assert judge(images).tolist() == [-0.5, 0.5]
    judge(images)
    assert [record.message for record in caplog.records] == [
        "My Taste: aesthetic is part of the taste but was not measured here; connect it."
    ]


def test_missing_scores_and_vetoes_are_no_evidence():
    scores = [
        {"a": None, "b": 1.0, "veto_noise": -1.0},
        {"a": 3.0, "b": 0.0, "veto_noise": 0.0},
    ]
    taste = learn_taste([Choice(scores, [0])] * 10)
    assert taste.verifiers == ("a", "b") and taste.weights[0] == 0 and taste.weights[1] > 0


def test_a_ranking_tells_every_pair_and_one_choice_those_of_the_chosen():
    scores = [{"a": float(i)} for i in range(4)]
    assert Choice(scores, [2, 0]).pairs() == [(2, 0), (2, 1), (2, 3), (0, 1), (0, 3)]
    assert Choice(scores, [1]).pairs() == [(1, 0), (1, 2), (1, 3)]


def test_choices_are_kept_as_lines_of_json():
    choices = [Choice([{"a": 1.0, "b": math.nan}, {"a": -math.inf, "b": 2.0}], [1])]
    line = choice_line(choices[0])
    assert line.count("\n") == 1 and json.loads(line) == {"scores": [{"a": 1.0, "b": None}, {"a": None, "b": 2.0}], "ranking": [1]}
    read, broken = read_choices(line * 3 + "\n")
    assert broken == 0 and read == [Choice([{"a": 1.0, "b": None}, {"a": None, "b": 2.0}], [1])] * 3


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "null",
        '{"scores": []}',
        '{"scores": [{"a": "x"}], "ranking": [0]}',
        '{"scores": [{"a": 1}], "ranking": [1]}',
        '{"scores": [{"a": 1}, {"a": 2}], "ranking": [0, 0]}',
        '{"scores": [{"a": 1}, {"a": 2}], "ranking": [true]}',
        '{"scores": [{"a": NaN}], "ranking": [0]}',
        '{"scores": [1], "ranking": [0]}',
        '{"scores": [{"a": 1}], "ranking": [[0]]}',
        "[" * 100_000,
    ],
)
def test_a_broken_line_is_counted_and_costs_no_other(line):
    good = choice_line(Choice([{"a": 1.0}, {"a": 2.0}], [1]))
    read, broken = read_choices(f"{good}{line}\n{good}")
    assert len(read) == 2 and broken == 1


def test_a_taste_travels_in_a_file():
    taste = learn_taste(choices_of(linear, 40))
    assert taste_from_json(taste.to_json()) == taste
    assert {"kind", "verifiers", "weights", "scales", "choices", "agreement", "error", "coin"} == json.loads(taste.to_json()).keys()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"weights": [1.0]},
        {"weights": ["x", "y", "z"]},
        {"scales": [0.0, 1.0, 1.0]},
        {"weights": [1e999, 1.0, 1.0]},
        {"verifiers": None},
    ],
)
def test_another_file_is_refused(change):
    text = json.dumps({**json.loads(learn_taste(choices_of(linear, 20)).to_json()), **change})
    with pytest.raises(ValueError, match="the file is no taste; give one that My Taste saved"):
        taste_from_json(text)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"kind": "fluxir taste"}', " " * 200_000])
def test_no_taste_at_all_is_refused(text):
    with pytest.raises(ValueError, match="the file is no taste"):
        taste_from_json(text)
