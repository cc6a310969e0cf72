"""Aggregators: several verifiers' scores of one cohort as one value a candidate.

`measured` is {verifier: (n, ...) scores, higher is better} of n candidates; the result is (n, ...) float32. Cohorts along the
further axes (the images of a batch) do not see each other. NaN and minus infinity are the worst a candidate can have; a
verifier that scores everyone NaN or alike decides nothing.
"""

import torch


def rank(scores):
    """Ranks of `scores` (n, ...) from 0, worst, to 1, best; ties share their mean rank, a lone or constant cohort has 0.5.

    NaN counts as the worst. Invariant to any increasing transformation of the scores.
    """
    scores = torch.where(scores.isnan(), -torch.inf, scores)
    below = (scores[None] < scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1) - 1
    return (below + equal / 2) / (len(scores) - 1) if len(scores) > 1 else torch.full_like(scores, 0.5)


def rank_sum(measured):
    """Sum over the verifiers of the ranks inside the cohort (ResFlow-Tuner's ensemble)."""
    return torch.stack([rank(scores.float()) for scores in measured.values()]).sum(0)


def mean_z(measured):
    """Mean over the verifiers of the z-scores inside the cohort; unusable scores get the cohort's lowest z minus 1."""
    return torch.stack([_z(scores.float()) for scores in measured.values()]).mean(0)


def _z(scores):
    usable = scores.isfinite()
    count = usable.sum(0).clamp(min=1)
    mean = torch.where(usable, scores, 0).sum(0) / count
    centered = torch.where(usable, scores - mean, 0)
    std = (centered.square().sum(0) / count).sqrt()
    # A spread below the arithmetic's own noise is no difference.
    z = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), centered / std, torch.zeros_like(centered))
    worst = torch.where(usable, z, torch.inf).amin(0) - 1
    return torch.where(usable, z, torch.where(usable.any(0), worst, 0))
