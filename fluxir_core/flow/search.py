"""`search`: runs a schedule on a task; `plan`: what it will cost."""

from dataclasses import dataclass, is_dataclass

import torch

from .contest import contest
from .run import Run, plain
from .sampling import check_sigmas

NOT_COMPARED = {"finalist_values": [], "finalist_scores": {}}


@dataclass
class Result:
    """latents (B, ...): the winners. finalists (n, B, ...): everyone in the last contest. report: JSON-ready, see `search`."""

    latents: torch.Tensor
    finalists: torch.Tensor
    report: dict


def plan(schedule, sigmas, finish=False):
    """What `schedule` costs a picture on `sigmas` (S + 1,): {"steps", "nfe", "nfe_least", "verifications", "adaptive"}.

    nfe counts model calls without classifier-free guidance, which doubles them. `finish`: finalists have their own decoder.
    """
    budget = schedule.budget(sigmas, finish)
    return {
        "steps": len(sigmas) - 1,
        "nfe": budget.nfe,
        "nfe_least": budget.least_nfe,
        "verifications": budget.verifications,
        "adaptive": budget.nfe != budget.least_nfe,
    }


@torch.no_grad()
def search(task, noise, sigmas, schedule, seed=0, keys=None, stopped_by=()):
    """Samples `noise` (B, ...) along `sigmas` (S + 1,), falling, in the way of `schedule`; returns a Result.

    The plain sample is Euler's from `noise` itself. All further noise is keyed by `seed` and each picture's entry of `keys`
    (default its index), so a picture's result does not depend on its neighbours. The report holds `nfe` and `verifications`
    as counted, `nfe_planned`, for each picture `score` and `baseline_score` (values in the last contest, None where nothing
    was compared) and `winner` (-1 is the plain sample), `finalist_values` and every verifier's `finalist_scores`, and the
    `log` of all rounds.
    When anything raises an exception `stopped_by`, the best so far is returned with `stopped` true; where there is none yet, it
    is passed on. Raises ValueError on NaN noise, sigmas that do not fall to 0, and mismatched keys. `student_calls` are a
    `paths.Student`'s, beyond `nfe`.
    """
    keys = list(range(len(noise))) if keys is None else list(keys)
    _check(noise, sigmas, keys)
    run = Run(task, noise.float(), sigmas, seed, keys)
    planned = plan(schedule, sigmas, task.finish is not None)
    report = {
        "schedule": describe(schedule),
        "seed": seed,
        "keys": keys,
        "sigmas": run.sigmas,
        "stopped": False,
        "nfe_planned": planned["nfe"],
        "verifications_planned": planned["verifications"],
    }
    try:
        verdict = contest(run, schedule.search(run), schedule.guard)
        latents, finalists = verdict.latents, verdict.measured.latents if verdict.measured else verdict.latents[None]
        report |= _scores(verdict, schedule.guard)
    except stopped_by:
        if run.best_so_far is None:
            raise
        latents, finalists = run.best_so_far, run.best_so_far[None]
        report |= {"stopped": True, "score": None, "baseline_score": None, "winner": None, **NOT_COMPARED}
    return Result(
        latents,
        finalists,
        report
        | {
            "nfe": run.nfe,
            "verifications": run.verifications,
            "student_calls": run.student_calls,
            "log": run.log,
        },
    )


def _scores(verdict, guard):
    winner = verdict.winner.tolist()
    if verdict.measured is None:
        return {"score": None, "baseline_score": None, "winner": winner, **NOT_COMPARED}
    values = plain(verdict.values)
    return {
        "score": [own[w] for own, w in zip(values, winner)],
        "baseline_score": [own[-1] for own in values] if guard else None,
        "winner": winner,
        "finalist_values": values,
        "finalist_scores": {name: plain(scores) for name, scores in verdict.measured.scores.items()},
    }


def describe(part):
    """A schedule, kernel, look-ahead or selector as JSON: its class and its settings."""
    if is_dataclass(part):
        return {"type": type(part).__name__, **{name: describe(getattr(part, name)) for name in part.__dataclass_fields__}}
    if isinstance(part, (list, tuple)):
        return [describe(item) for item in part]
    return part if isinstance(part, (int, float, str, bool)) or part is None else {"type": type(part).__name__}


def _check(noise, sigmas, keys):
    if not torch.isfinite(noise).all():
        raise ValueError("TTS: the noise holds NaN or infinity; connect a noise source that does not.")
    check_sigmas(sigmas)
    if len(keys) != len(noise):
        raise ValueError(f"TTS: {len(keys)} keys for {len(noise)} pictures; give one each.")
