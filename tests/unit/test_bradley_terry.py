"""Bradley-Terry's fit recovers known strengths, equals a reference, and its intervals cover the truth."""

import numpy as np
import pytest
from comfyui_fluxir.fluxir_core.verify.bradley_terry import RIDGE, Vote, fit_comparisons, rate

TRUE = {"good": 1.0, "fair": 0.0, "poor": -1.0}


def drawn_votes(strengths, images, voters, seed=0):
    """Every pair on every image by every voter, drawn from the model."""
    generator = np.random.default_rng(seed)
    names = list(strengths)
    return [
        Vote(str(image), a, b, a if generator.random() < 1 / (1 + np.exp(strengths[b] - strengths[a])) else b, str(voter))
        for image in range(images)
        for voter in range(voters)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


@pytest.mark.parametrize("ridge", [0.1, 1.0, 10.0])
def test_it_is_the_logistic_regression_that_scikit_learn_fits(ridge):
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 4))
    sign = np.where(generator.random(300) < 1 / (1 + np.exp(-x @ [2.0, -1.0, 0.5, 0.0])), 1, -1)
    reference = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, sign > 0)
    found, covariance = fit_comparisons(x * sign[:, None], ridge)
    np.testing.assert_allclose(found, reference.coef_[0], atol=1e-5)
    assert covariance.shape == (4, 4) and (np.linalg.eigvalsh(covariance) > 0).all()


def test_the_curvature_is_that_of_the_likelihood():
    x, ridge = np.random.default_rng(1).normal(size=(50, 3)), 0.5
    w, covariance = fit_comparisons(x, ridge)

    def loss(w):
        return np.logaddexp(0, -x @ w).sum() + ridge / 2 * w @ w

    step = 1e-4 * np.eye(3)
    measured = [[(loss(w + a + b) - loss(w + a - b) - loss(w - a + b) + loss(w - a - b)) / 4e-8 for a in step] for b in step]
    np.testing.assert_allclose(np.linalg.inv(covariance), measured, rtol=1e-3, atol=1e-3)


def test_a_comparison_that_counts_twice_is_two():
    x = np.random.default_rng(2).normal(size=(20, 2))
    counts = np.random.default_rng(3).integers(0, 4, 20)
    np.testing.assert_allclose(fit_comparisons(x, 1.0, counts)[0], fit_comparisons(np.repeat(x, counts, 0), 1.0)[0], atol=1e-9)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_perfectly_told_apart_and_badly_scaled_data_still_have_a_fit(size):
    x = np.abs(np.random.default_rng(4).normal(size=(40, 2))) * [size, 1]
    found, covariance = fit_comparisons(x, 0.1)
    assert np.isfinite(found).all() and np.isfinite(covariance).all()
    p = 1 / (1 + np.exp(np.clip(x @ found, -500, 500)))
    np.testing.assert_allclose(0.1 * found, x.T @ p, atol=1e-4)  # where the gradient is 0


def test_known_strengths_are_recovered():
    standings, images = rate(drawn_votes(TRUE, 400, 5))
    assert images == 400 and [s.method for s in standings] == ["good", "fair", "poor"]
    assert [s.score for s in standings] == pytest.approx([1, 0, -1], abs=0.1)


def test_the_intervals_cover_the_truth_nineteen_times_in_twenty():
    covered = []
    for seed in range(100):
        standings, _ = rate(drawn_votes(TRUE, 12, 4, seed))
        covered += [s.low <= TRUE[s.method] <= s.high for s in standings]
    assert 0.91 <= np.mean(covered) <= 0.99


def test_the_shares_are_of_images_on_which_a_method_leads():
    # On three of four images a leads, on the fourth c; b is second on all.
    votes = []
    for image, order in enumerate(["abc", "abc", "abc", "cba"]):
        votes += [Vote(str(image), *pair, pair[0]) for pair in (order[:2], order[1:], order[::2])]
    standings = {s.method: s for s in rate(votes)[0]}
    assert {m: s.best for m, s in standings.items()} == {"a": 0.75, "b": 0.0, "c": 0.25}
    assert {m: s.best_two for m, s in standings.items()} == {"a": 0.75, "b": 1.0, "c": 0.25}
    assert {s.votes for s in standings.values()} == {8}


def test_a_tie_is_half_a_vote_and_shares_the_rank():
    tied, images = rate([Vote("1", "a", "b", None)])
    assert images == 1 and [(s.score, s.best, s.best_two) for s in tied] == [(pytest.approx(0), 0.5, 1.0)] * 2
    half = rate([Vote("1", "a", "b", "a"), Vote("1", "a", "b", "b")])[0]
    assert [s.score for s in half] == pytest.approx([s.score for s in tied])


def test_one_that_never_lost_has_a_finite_score_and_a_wide_interval():
    few, many = (rate([Vote("1", "a", "b", "a")] * count)[0][0] for count in (3, 300))
    assert few.method == "a" and 0 < few.score < many.score < 20
    assert few.low < 0 < many.low


def test_sides_make_no_difference():
    votes = drawn_votes(TRUE, 5, 2)
    turned = [vote._replace(a=vote.b, b=vote.a) for vote in votes]
    for one, other in zip(rate(votes)[0], rate(turned)[0]):
        assert one.method == other.method and one[1:] == pytest.approx(other[1:])


def test_an_image_on_which_not_all_were_compared_counts_for_scores_only():
    votes = [Vote("1", "a", "b", "a"), Vote("1", "a", "c", "a"), Vote("2", "a", "b", "b")]
    standings, images = rate(votes)
    assert images == 1 and standings[0].method == "a" and standings[0].best == 1


def test_no_votes_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="there are no votes to fit; vote on at least one pair"):
        rate([])
    assert RIDGE > 0
