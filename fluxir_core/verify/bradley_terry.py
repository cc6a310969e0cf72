"""Bradley-Terry's model of comparisons (Biometrika 39, 1952): P(a beats b) = 1 / (1 + exp(u_b - u_a)), fitted by Newton's method.

One fit serves both uses: u linear in features of what is compared (see `taste`), and a u of its own for each method of a study.
"""

from typing import NamedTuple

import numpy as np

RIDGE = 0.1
"""The prior of a study's scores: normal, of variance 1 / RIDGE. A method that never lost keeps a finite score."""
Z95 = 1.96


class Vote(NamedTuple):
    """One comparison on the image `image`: methods `a` and `b`, and the `winner`, None where neither was better."""

    image: str
    a: str
    b: str
    winner: str | None
    voter: str = ""


class Standing(NamedTuple):
    """A method in a study: its score in log-odds (the methods' mean is 0) with a 95 % interval, shares in [0, 1] of images on
    which it ranks first and among the first two, and the number of votes on it."""

    method: str
    score: float
    low: float
    high: float
    best: float
    best_two: float
    votes: int


def fit_comparisons(differences, ridge, weights=None):
    """Feature weights under which winners beat losers, and their uncertainty.

    Args:
        differences: (n, k), the winner's features minus the loser's.
        ridge: above 0; the weights' prior is normal with mean 0 and variance 1 / ridge.
        weights: (n,) how much each comparison counts, default 1.

    Returns:
        (k,) the most likely weights, and the (k, k) inverse of the log-likelihood's curvature there, their covariance.
    """
    x = np.asarray(differences, np.float64)
    counts = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    w = np.zeros(x.shape[1])

    def loss(w):
        return (counts * np.logaddexp(0, -x @ w)).sum() + ridge / 2 * w @ w

    for _ in range(100):
        p = 1 / (1 + np.exp(np.clip(x @ w, -500, 500)))  # of the loser winning
        gradient = ridge * w - x.T @ (counts * p)
        curvature = (x.T * (counts * p * (1 - p))) @ x + ridge * np.eye(len(w))
        step, size = np.linalg.solve(curvature, gradient), 1.0
        if np.abs(step).max(initial=0) < 1e-10:
            break
        while loss(w - size * step) > loss(w) and size > 1e-6:  # far from the end, Newton's step may overshoot
            size /= 2
        w = w - size * step
    return w, np.linalg.inv(curvature)


def rate(votes):
    """`votes` as Standings, the best first, and the number of images that the shares are of.

    A tie is half a vote each way. Intervals take the votes as independent. An image counts for the shares once every method
    has a vote on it; methods whose scores on it are equal share the rank. Raises ValueError without votes.
    """
    methods = sorted({method for vote in votes for method in (vote.a, vote.b)})
    if not methods:
        raise ValueError("there are no votes to fit; vote on at least one pair and save the votes.")
    scores, covariance = _scores(votes, methods)
    error = np.sqrt(np.diag(covariance))
    images = {}
    for vote in votes:
        images.setdefault(vote.image, []).append(vote)
    ranked = []
    for own in images.values():
        if {method for vote in own for method in (vote.a, vote.b)} == {*methods}:
            u = _scores(own, methods)[0]
            ranked.append([_shares(u, 1), _shares(u, min(2, len(methods)))])
    shares = np.mean(ranked, 0) if ranked else np.full((2, len(methods)), np.nan)
    found = [
        Standing(
            method,
            float(scores[i]),
            float(scores[i] - Z95 * error[i]),
            float(scores[i] + Z95 * error[i]),
            float(shares[0, i]),
            float(shares[1, i]),
            sum(method in (vote.a, vote.b) for vote in votes),
        )
        for i, method in enumerate(methods)
    ]
    return sorted(found, key=lambda standing: -standing.score), len(ranked)


def _scores(votes, methods):
    """(m,) scores of `methods`, mean 0, and their covariance (m, m)."""
    rows, weights = [], []
    for vote in votes:
        row = np.zeros(len(methods))
        row[methods.index(vote.a)], row[methods.index(vote.b)] = 1, -1
        won = {vote.a: 1.0, vote.b: 0.0, None: 0.5}[vote.winner]
        rows += [row, -row]
        weights += [won, 1 - won]
    w, covariance = fit_comparisons(rows, RIDGE, weights)
    center = np.eye(len(methods)) - 1 / len(methods)  # votes say nothing about the mean
    return center @ w, center @ covariance @ center


def _shares(u, places):
    """(m,) the chance of each to be among the first `places` by `u`, where equal ones are drawn by lot."""
    above = (u[None] > u[:, None] + 1e-6).sum(1)
    equal = (np.abs(u[None] - u[:, None]) <= 1e-6).sum(1)
    return np.clip((places - above) / equal, 0, 1)
