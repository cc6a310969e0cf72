"""`search`: runs an algorithm on a task; `estimate_cost`: what it will cost."""

from dataclasses import dataclass, is_dataclass

import torch

from ..flow.rectified_flow import check_sigmas
from .final_selection import select_final
from .selectors import take
from .state import SearchState, scores_to_json, to_json
from .within_budget import WithinBudget

NOT_COMPARED = {"finalist_values": [], "finalist_scores": {}, "gain": None, "held_out": {}, "remarks": []}


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
    """Samples images by a search algorithm.

    The baseline is Euler's from `noise` itself. All further noise is keyed by `seed` and each image's key, so an image's result
    does not depend on its neighbors.

    Args:
        task: Task.
        noise: the initial noise, (B, ...).
        sigmas: (S + 1,), falling to 0.
        algorithm: one of PRESETS, or another EvolutionarySearch, StepwiseSearch, SMC, Halving or WithinBudget.
        seed: of all noise but the initial one.
        keys: one for each image, numbers or texts; None for the images' indices.
        stopped_by: exception classes; when anything raises one of them, the best so far is returned with `stopped` true. Where
            there is none yet, it is passed on.

    Returns:
        A SearchResult. Its report holds `nfe` and `verifications` as counted, `nfe_planned` and `verifications_planned`, for each
        image `score` and `baseline_score` (values in the final selection, None where nothing was compared), their difference
        `gain`, and `winner` (-1 is the baseline), `finalist_values` and every verifier's `finalist_scores`, and the `log` of all
        rounds. `held_out` is {verifier that was not searched on: {"score", "baseline_score", "gain"}, each an image}, not counted
        among the verifications; `remarks` are sentences about what could not be judged. `student_calls` are a
        `look_ahead.Student`'s, beyond `nfe`.

    Raises:
        ValueError: the noise holds NaN or infinity, the sigmas do not fall to 0, or there is not one key for each image.
    """
    keys = list(range(len(noise))) if keys is None else list(keys)
    _check(noise, sigmas, keys)
    state = SearchState(task, noise.float(), sigmas, seed, keys)
    planned = estimate_cost(algorithm, sigmas, task.finish is not None)
    algorithm = algorithm.on(state.sigmas) if isinstance(algorithm, WithinBudget) else algorithm
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
        report |= _scores(state, verdict, algorithm.baseline_check)
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


def _scores(state, verdict, baseline_check):
    winner = verdict.winner.tolist()
    if verdict.scored is None:
        return {"score": None, "baseline_score": None, "winner": winner, **NOT_COMPARED}
    values = to_json(verdict.values)
    score = [own[w] for own, w in zip(values, winner)]
    baseline = [own[-1] for own in values] if baseline_check else None
    return {
        "score": score,
        "baseline_score": baseline,
        "gain": _gain(score, baseline),
        "winner": winner,
        "finalist_values": values,
        "finalist_scores": scores_to_json(verdict.scored),
        "held_out": _held_out(state, verdict, baseline_check),
        "remarks": _remarks(verdict, baseline_check),
    }


def _gain(score, baseline):
    return baseline and [None if None in pair else round(pair[0] - pair[1], 6) for pair in zip(score, baseline)]


def _held_out(state, verdict, baseline_check):
    """{verifier: its scores of the winners and the baselines, and their difference}."""
    images = verdict.scored.images
    won = take(images, verdict.winner.to(images.device)[None] % len(images))[0]
    found = {name: to_json(scores[:, None])[0] for name, scores in state.held_out(won).items()}
    before = {name: to_json(scores[:, None])[0] for name, scores in state.held_out(images[-1]).items()} if baseline_check else {}
    return {
        name: {"score": score, "baseline_score": before.get(name), "gain": _gain(score, before.get(name))}
        for name, score in found.items()
    }


def _remarks(verdict, baseline_check):
    """What an artist should know of a final selection that could not judge."""
    instead = "this is the baseline" if baseline_check else "the first one is returned"
    if not verdict.scored.scores:
        return [f"No verifier gave a score, so nothing was chosen: {instead}."]
    finalists = verdict.values[:-1] if baseline_check else verdict.values
    refused = (finalists == -torch.inf).all(0).nonzero().flatten().tolist()
    return [f"Image {image}: the verifier refused every candidate: {instead}." for image in refused]


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
    check_sigmas(sigmas)
    if len(keys) != len(noise):
        raise ValueError(f"{len(keys)} keys for {len(noise)} images; give one each.")
