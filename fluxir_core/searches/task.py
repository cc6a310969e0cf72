"""What a search is given, and what it counts and scores: plain functions and tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..verify.aggregate import mean_z
from .selectors import take


class Budget(NamedTuple):
    """What a search costs an image: model calls and scored images; `nfe` is the most, `least_nfe` what is always paid."""

    nfe: int
    least_nfe: int
    verifications: int


@dataclass
class Task:
    """A search's world: functions, not frameworks.

    Rows hold n candidates of each of the B images of a batch, candidate by candidate (row = candidate * B + image).

    Args:
        velocity: (rows, ...) latents and (rows,) times in (0, 1] -> (rows, ...) velocities.
        decode: clean latents -> (rows, 3, H, W) images in [0, 1].
        score: images -> {verifier: (rows,) scores, higher is better, NaN allowed}.
        combine: {verifier: (n, B)} -> (n, B), one value a candidate within each image's cohort (see `aggregate`); -inf refuses it.
        member_values: {verifier: (n, B)} -> {member: (n, B)}, who votes in the final selection; None: every verifier does.
        start: initial noise (rows, ...) -> the state at the first sigma; None where that is the noise itself.
        finish: the decoder for the finalists, None to use `decode`.
        fidelity: images -> (rows,) closeness to the degraded input in dB, None where there is no input to be faithful to.
        held_out: images -> {verifier: (rows,) scores} of verifiers that the search is not to see; they are reported. None: no such.
        watch: called with each scored cohort (a `Round`) once it is decided; None for nothing.
        score_tile: crops (rows, 3, h, w) of images, their Tile in pixels and the whole's (H, W) -> as score; None where images
            can only be judged whole.
    """

    velocity: Callable
    decode: Callable
    score: Callable
    combine: Callable = mean_z
    member_values: Callable | None = None
    start: Callable | None = None
    finish: Callable | None = None
    fidelity: Callable | None = None
    held_out: Callable | None = None
    watch: Callable | None = None
    score_tile: Callable | None = None


class Round(NamedTuple):
    """A decided cohort: images (n, B, 3, H, W), values (n, B), chosen (m, B) indices into the cohort."""

    step: int
    images: torch.Tensor
    values: torch.Tensor
    chosen: torch.Tensor


class ScoredCandidates(NamedTuple):
    """Scores {verifier: (n, B)} and the images (n, B, 3, H, W) and latents (n, B, ...) they belong to."""

    scores: dict
    images: torch.Tensor
    latents: torch.Tensor

    def take(self, index):
        scores = {name: take(values, index) for name, values in self.scores.items()}
        return ScoredCandidates(scores, take(self.images, index), take(self.latents, index))

    @staticmethod
    def join(first, second):
        """The candidates of both; a score that only one has (a verifier failed) is NaN for the other."""
        scores = {
            name: torch.cat([part.scores.get(name, torch.full(part.latents.shape[:2], torch.nan)) for part in (first, second)])
            for name in first.scores | second.scores
        }
        return ScoredCandidates(scores, torch.cat([first.images, second.images]), torch.cat([first.latents, second.latents]))
