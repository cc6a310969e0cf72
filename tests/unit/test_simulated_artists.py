"""The measurement of My Taste: simulated artists are what they are said to be, and the table says what was found."""

import re

import numpy as np
import pytest
import torch
from comfyui_fluxir.training.studies.simulated_artists import (
    COUNTS,
    KINDS,
    artist_of,
    colorfulness,
    simulate,
    table,
)

LINEAR, HALF, HIDDEN, INCONSISTENT, COIN = KINDS
ARTISTS = 3


@pytest.fixture(scope="module")
def found():
    """Scenes of six photos with random scores, of the default ensemble's names."""
    generator = np.random.default_rng(0)
    names = ("niqe", "coherent_gradient", "spectral_slope", "consistency", "piqe", "veto_noise")
    return [
        (
            f"photo {scene % 6}",
            [dict(zip(names, [*generator.normal(size=5).tolist(), 0.0])) for _ in range(8)],
            generator.normal(size=8),
        )
        for scene in range(18)
    ]


@pytest.fixture(scope="module")
def rows(found):
    return [row for kind in KINDS for seed in range(ARTISTS) for row in simulate(found, kind, seed)]


def mean(rows, kind, name, choices=COUNTS[-1]):
    return float(np.mean([row[name] for row in rows if (row["artist"], row["choices"]) == (kind, choices)]))


def test_what_is_measured_is_learned(rows):
    assert mean(rows, LINEAR, "agreement") > 0.9 and mean(rows, LINEAR, "ceiling") == 1


def test_what_nobody_measures_is_not(rows):
    assert mean(rows, HIDDEN, "agreement") < 0.62 and mean(rows, HIDDEN, "ceiling") == 1
    assert mean(rows, HIDDEN, "agreement") < mean(rows, HALF, "agreement") < mean(rows, LINEAR, "agreement")


def test_an_inconsistent_artist_cannot_be_predicted_better_than_their_own_utility_does(rows):
    ceiling = mean(rows, INCONSISTENT, "ceiling")
    assert 0.6 < ceiling < 0.9 and 0.6 < mean(rows, INCONSISTENT, "agreement") < ceiling + 0.05


def test_a_coin_is_no_taste(rows):
    assert mean(rows, COIN, "ceiling") == 0.5 and mean(rows, COIN, "agreement") == pytest.approx(0.5, abs=0.08)


def test_more_choices_teach_more(rows):
    assert mean(rows, LINEAR, "agreement", 5) < mean(rows, LINEAR, "agreement", 160)


def test_an_artist_is_repeatable_and_another_for_every_seed(found):
    one, again, other = (artist_of(LINEAR, found, seed).utility[0] for seed in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_the_hidden_taste_is_about_color():
    gray, red = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4)
    red[:, 0] = 1
    assert colorfulness(gray) == 0 and colorfulness(red).item() == pytest.approx((2 / 9) ** 0.5)


def test_the_table_has_a_line_for_every_artist_in_both_parts(rows):
    text = table(rows)
    for kind in KINDS:
        assert len(re.findall(rf"^\| {re.escape(kind)} \|", text, re.M)) == 2
    # A linear artist's 80 % are reached by all, a coin's by none.
    assert re.search(rf"^\| {re.escape(LINEAR)} \| \d+ \({ARTISTS} of {ARTISTS}\) \|", text, re.M)
    assert re.search(rf"^\| {re.escape(COIN)} \| never \(0 of {ARTISTS}\) \|", text, re.M)
