"""The final selection: the finalists against the baseline, so that a search never returns anything worse."""

from typing import NamedTuple

import torch

from .selectors import take
from .task import ScoredCandidates

FIDELITY_MARGIN = 1.0
"""dB by which a winner may be further from the degraded input than the baseline."""


class Outcome(NamedTuple):
    """What an engine ends with: the finalists' latents (n, B, ...), the baseline's (1, B, ...), and their scores if known.

    baseline is None without a baseline check; baseline_is_first says that the first finalist is the baseline.
    """

    latents: torch.Tensor
    scored: ScoredCandidates | None
    baseline: torch.Tensor | None
    baseline_scored: ScoredCandidates | None = None
    baseline_is_first: bool = False


class Verdict(NamedTuple):
    """latents (B, ...) of the winners, which finalists they are ((B,), -1 for the baseline) and everyone's scores.

    scored holds the finalists, then the baseline if there is one; None where nobody was scored.
    """

    latents: torch.Tensor
    winner: torch.Tensor
    scored: ScoredCandidates | None
    values: torch.Tensor | None


def selection_verifications(finalists, baseline_check, finish, known, baseline_known, baseline_is_first):
    """Counts the images that `select_final` scores.

    Args:
        finalists: how many there are for each image of the batch.
        baseline_check: whether the baseline is compared with them.
        finish: whether the finalists have a decoder of their own.
        known: whether the finalists' scores are known from the search.
        baseline_known: whether the baseline's are.
        baseline_is_first: whether the first finalist is the baseline.

    Returns:
        How many, for each image of the batch.
    """
    if finalists == 1 and (not baseline_check or baseline_is_first):
        return 0
    scored = 0 if known and not finish else finalists
    if baseline_check and not baseline_is_first and (finish or not baseline_known):
        scored += 1
    return scored


def select_final(state, outcome, baseline_check):
    """The best finalist of `outcome` for each image, if `baseline_check` no worse than the baseline; returns a Verdict.

    Scored with the task's `finish` decoder where it has one. A finalist may replace the baseline when it is not refused
    (-inf), has at least the baseline's value among all finalists, wins its duel (see `duels_won`) and stays as near to the
    degraded input, up to FIDELITY_MARGIN. Of those the one with the highest value among all finalists wins.
    """
    count = len(outcome.latents)
    if count == 1 and (not baseline_check or outcome.baseline_is_first):
        scored = outcome.scored
        values = state.values(scored) if scored else None
        return Verdict(outcome.latents[0], torch.zeros(outcome.latents.shape[1], dtype=torch.long), scored, values)
    finish = state.task.finish
    scored = outcome.scored if outcome.scored and not finish else state.score_latents(outcome.latents, finish)
    baseline = None
    if baseline_check:
        if outcome.baseline_is_first:
            baseline = scored.take(torch.zeros(1, outcome.latents.shape[1], dtype=torch.long))
        elif outcome.baseline_scored and not finish:
            baseline = outcome.baseline_scored
        else:
            baseline = state.score_latents(outcome.baseline, finish)
        scored = ScoredCandidates.join(scored, baseline)
    values = state.values(scored)
    if baseline_check:
        admitted = values[:count].masked_fill(~_may_replace(state.task, scored, values), -torch.inf)
        winner = torch.where(admitted.amax(0) > -torch.inf, admitted.argmax(0), count)
    else:
        winner = values.argmax(0)
    latents = take(scored.latents, winner[None])[0]
    return Verdict(latents, torch.where(winner == count, -1, winner) if baseline_check else winner, scored, values)


def duels_won(task, scores, values):
    """Which finalists (n, B) win their duel with the baseline, the last of `scores` {verifier: (n + 1, B)}.

    A duel compares the two alone. Each member of the ensemble has one vote, for the one it values higher, however many
    scores it is made of; a member that is an ensemble values a cohort of these two. The majority decides, and a tie goes
    to the higher of `values` (n + 1, B), those among all finalists: alone, two members that disagree are equal.
    """
    shape = values[:-1].shape
    pairs = {name: torch.stack([own[:-1], own[-1:].expand(shape)]).flatten(1) for name, own in scores.items()}
    members = task.member_values(pairs) if task.member_values and pairs else pairs
    votes = torch.zeros(shape)
    for pair in members.values():
        own, other = pair.masked_fill(pair.isnan(), -torch.inf)
        votes += ((own > other).float() - (own < other).float()).unflatten(0, shape)
    return (votes > 0) | ((votes == 0) & (values[:-1] > values[-1:]))


def _may_replace(task, scored, values):
    """Which finalists (n, B) may replace the baseline, the last of `scored`."""
    admitted = (values[:-1] > -torch.inf) & (values[:-1] >= values[-1:]) & duels_won(task, scored.scores, values)
    if task.fidelity is not None:
        sizes = scored.images.shape[:2]
        near = task.fidelity(scored.images.flatten(0, 1)).cpu().unflatten(0, sizes)
        admitted &= near[:-1] >= near[-1:] - FIDELITY_MARGIN
    return admitted
