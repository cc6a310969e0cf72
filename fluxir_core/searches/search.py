"""`search`: runs an algorithm on a task; `estimate_cost`: what it will cost."""

from dataclasses import dataclass, is_dataclass

import torch

from .final_selection import select_final
from .state import SearchState, to_json

NOT_COMPARED = {"finalist_values": [], "finalist_scores": {}}


@dataclass
class SearchResult:
    """latents (B, ...): the winners. finalists (n, B, ...): everyone in the final selection. report: JSON-ready, see `search`."""

    latents: torch.Tensor
    finalists: torch.Tensor
    report: dict


def estimate_cost(algorithm, sigmas, finish=False):
    """What `algorithm` costs an image on `sigmas` (S + 1,): {"steps", "nfe", "nfe_least", "verifications", "adaptive"}.

    nfe counts model calls without classifier-free guidance, which doubles them. `finish`: finalists have their own decoder.
    """
    budget = algorithm.budget(sigmas, finish)
    return {
        "steps": len(sigmas) - 1,
        "nfe": budget.nfe,
        "nfe_least": budget.least_nfe,
        "verifications": budget.verifications,
        "adaptive": budget.nfe != budget.least_nfe,
    }


@torch.no_grad()
def search(task, noise, sigmas, algorithm, seed=0, keys=None, stopped_by=()):
    """Samples `noise` (B, ...) along `sigmas` (S + 1,), falling, in the way of `algorithm`; returns a SearchResult.

    The baseline is Euler's from `noise` itself. All further noise is keyed by `seed` and each image's entry of `keys`
    (default its index), so an image's result does not depend on its neighbours. The report holds `nfe` and `verifications`
    as counted, `nfe_planned`, for each image `score` and `baseline_score` (values in the final selection, None where nothing
    was compared) and `winner` (-1 is the baseline), `finalist_values` and every verifier's `finalist_scores`, and the
    `log` of all rounds.
    When anything raises an exception `stopped_by`, the best so far is returned with `stopped` true; where there is none yet, it
    is passed on. Raises ValueError on NaN noise, sigmas that do not fall to 0, and mismatched keys. `student_calls` are a
    `look_ahead.Student`'s, beyond `nfe`.
    """
    keys = list(range(len(noise))) if keys is None else list(keys)
    _check(noise, sigmas, keys)
    state = SearchState(task, noise.float(), sigmas, seed, keys)
    planned = estimate_cost(algorithm, sigmas, task.finish is not None)
    report = {
        "algorithm": describe(algorithm),
        "seed": seed,
        "keys": keys,
        "sigmas": state.sigmas,
        "stopped": False,
        "nfe_planned": planned["nfe"],
        "verifications_planned": planned["verifications"],
    }
    try:
        verdict = select_final(state, algorithm.search(state), algorithm.baseline_check)
        latents, finalists = verdict.latents, verdict.scored.latents if verdict.scored else verdict.latents[None]
        report |= _scores(verdict, algorithm.baseline_check)
    except stopped_by:
        if state.best_so_far is None:
            raise
        latents, finalists = state.best_so_far, state.best_so_far[None]
        report |= {"stopped": True, "score": None, "baseline_score": None, "winner": None, **NOT_COMPARED}
    return SearchResult(
        latents,
        finalists,
        report
        | {
            "nfe": state.nfe,
            "verifications": state.verifications,
            "student_calls": state.student_calls,
            "log": state.log,
        },
    )


def _scores(verdict, baseline_check):
    winner = verdict.winner.tolist()
    if verdict.scored is None:
        return {"score": None, "baseline_score": None, "winner": winner, **NOT_COMPARED}
    values = to_json(verdict.values)
    return {
        "score": [own[w] for own, w in zip(values, winner)],
        "baseline_score": [own[-1] for own in values] if baseline_check else None,
        "winner": winner,
        "finalist_values": values,
        "finalist_scores": {name: to_json(scores) for name, scores in verdict.scored.scores.items()},
    }


def describe(part):
    """An algorithm, kernel, look-ahead or selector as JSON: its class and its settings."""
    if is_dataclass(part):
        return {"type": type(part).__name__, **{name: describe(getattr(part, name)) for name in part.__dataclass_fields__}}
    if isinstance(part, (list, tuple)):
        return [describe(item) for item in part]
    return part if isinstance(part, (int, float, str, bool)) or part is None else {"type": type(part).__name__}


def _check(noise, sigmas, keys):
    if not torch.isfinite(noise).all():
        raise ValueError("the noise holds NaN or infinity; connect a noise source that does not.")
    values = [float(sigma) for sigma in sigmas]
    if len(values) < 2:
        raise ValueError("the sigmas hold no step; use at least two sigmas.")
    if any(b >= a for a, b in zip(values, values[1:])) or values[0] > 1.001:
        raise ValueError(
            f"the sigmas, {values[0]:.3g} to {values[-1]:.3g}, do not fall from 1 or less; use a flow-matching model's sigmas."
        )
    if values[-1] != 0:
        raise ValueError(f"the last sigma is {values[-1]:.3g}; a search needs the whole way to 0, so do not split it there.")
    if len(keys) != len(noise):
        raise ValueError(f"{len(keys)} keys for {len(noise)} images; give one each.")
