"""The last contest: the finalists against the plain sample, so that a search never returns anything worse."""

from typing import NamedTuple

import torch

from .selectors import take
from .task import Measured

FIDELITY_MARGIN = 1.0
"""dB by which a winner may be further from the degraded input than the plain sample."""


class Outcome(NamedTuple):
    """What an engine ends with: the finalists' latents (n, B, ...), the plain sample's (1, B, ...), and their scores if known.

    plain is None where the schedule has no guard; plain_is_first says that the first finalist is the plain sample.
    """

    latents: torch.Tensor
    measured: Measured | None
    plain: torch.Tensor | None
    plain_measured: Measured | None = None
    plain_is_first: bool = False


class Verdict(NamedTuple):
    """latents (B, ...) of the winners, which finalists they are ((B,), -1 for the plain sample) and everyone's scores.

    measured holds the finalists, then the plain sample if there is one; None where nobody was scored.
    """

    latents: torch.Tensor
    winner: torch.Tensor
    measured: Measured | None
    values: torch.Tensor | None


def contest_verifications(finalists, guard, finish, known, plain_known, plain_is_first):
    """Pictures that `contest` scores."""
    if finalists == 1 and (not guard or plain_is_first):
        return 0
    scored = 0 if known and not finish else finalists
    if guard and not plain_is_first and (finish or not plain_known):
        scored += 1
    return scored


def contest(run, outcome, guard):
    """The best finalist of `outcome` for each picture, if `guard` no worse than the plain sample; returns a Verdict.

    Scored with the task's `finish` decoder where it has one. A winner must reach the plain sample's value, beat it on more
    verifiers than it loses on, and stay as near to the degraded input, up to FIDELITY_MARGIN.
    """
    count = len(outcome.latents)
    if count == 1 and (not guard or outcome.plain_is_first):
        measured = outcome.measured
        values = run.values(measured) if measured else None
        return Verdict(outcome.latents[0], torch.zeros(outcome.latents.shape[1], dtype=torch.long), measured, values)
    finish = run.task.finish
    measured = outcome.measured if outcome.measured and not finish else run.measure(outcome.latents, finish)
    plain = None
    if guard:
        if outcome.plain_is_first:
            plain = measured.take(torch.zeros(1, outcome.latents.shape[1], dtype=torch.long))
        elif outcome.plain_measured and not finish:
            plain = outcome.plain_measured
        else:
            plain = run.measure(outcome.plain, finish)
        measured = Measured.join(measured, plain)
    values = run.values(measured)
    if guard:
        admitted = values[:count].masked_fill(~_no_worse(run.task, measured, values), -torch.inf)
        best = admitted.argmax(0)
        winner = torch.where(admitted.amax(0) > -torch.inf, best, count)
    else:
        winner = values.argmax(0)
    latents = take(measured.latents, winner[None])[0]
    return Verdict(latents, torch.where(winner == count, -1, winner) if guard else winner, measured, values)


def _no_worse(task, measured, values):
    """Which finalists (n, B) may replace the plain sample, the last of `measured`."""
    won = sum(
        _beats(scores[:-1], scores[-1:]).int() - _beats(scores[-1:], scores[:-1]).int() for scores in measured.scores.values()
    )
    admitted = (values[:-1] >= values[-1:]) & (won > 0)
    if task.fidelity is not None:
        sizes = measured.pictures.shape[:2]
        near = task.fidelity(measured.pictures.flatten(0, 1)).cpu().unflatten(0, sizes)
        admitted &= near[:-1] >= near[-1:] - FIDELITY_MARGIN
    return admitted


def _beats(scores, others):
    """Whether `scores` are above `others`; NaN is below everything."""
    return scores.nan_to_num(nan=-torch.inf) > others.nan_to_num(nan=-torch.inf)
