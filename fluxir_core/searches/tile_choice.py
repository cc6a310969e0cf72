"""A search that chooses for each tile by itself: winners of tiles, and one image's noise composed of theirs."""

from typing import NamedTuple

import torch

from ..execution.tiles import TileGrid
from .task import ScoredCandidates


class TileChoice(NamedTuple):
    """scored: the cohort, its scores the means over the tiles. values (n, B): the same of its values. winners (R, B): the
    best candidate of each tile. shares (n, B, H, W): how much of each place is each candidate's; they sum to one."""

    scored: ScoredCandidates
    values: torch.Tensor
    winners: torch.Tensor
    shares: torch.Tensor


def choose_by_tile(state, estimates, tile):
    """The TileChoice of clean latents (n, B, ..., H, W), judged on crops of at most `tile` pixels a side of their images.

    Raises ValueError when the task cannot judge crops.
    """
    if state.task.score_tile is None:
        raise ValueError("this host cannot judge tiles; use a search algorithm that chooses for the whole image.")
    state.verifications += len(estimates)
    images = state.task.decode(estimates.flatten(0, 1))
    full, sizes = images.shape[-2:], estimates.shape[:2]
    ratio = round(full[0] / estimates.shape[-2])
    height, width = estimates.shape[-2:]
    grid = TileGrid(height, width, max(2, tile // ratio))
    shares = estimates.new_zeros(*sizes, *estimates.shape[-2:])
    scores, values, winners = [], [], []
    for own in grid.tiles:
        place = own.times(ratio)
        found = state.task.score_tile(place.of(images), place, tuple(full))
        scores.append({name: score.detach().float().cpu().unflatten(0, sizes) for name, score in found.items()})
        values.append(state.values(ScoredCandidates(scores[-1], images, estimates)))
        winners.append(values[-1].argmax(0))
        won = torch.nn.functional.one_hot(winners[-1], sizes[0]).T.to(shares)
        own.of(shares).add_(won[..., None, None] * grid.window(own).to(shares))
    mean = {name: torch.stack([score[name] for score in scores]).nanmean(0) for name in scores[0]}
    scored = ScoredCandidates(mean, images.unflatten(0, sizes), estimates)
    return TileChoice(scored, torch.stack(values).mean(0), torch.stack(winners), shares)


def compose_noise(noises, shares):
    """One noise (1, B, ..., H, W) of candidates' independent ones (n, B, ..., H, W), by `shares` (n, B, H, W).

    Where one candidate has a place to itself its noise is kept as it is; where several share it the weights are brought to
    a sum of squares of one, so that the variance is one everywhere.
    """
    weights = shares / shares.square().sum(0, keepdim=True).sqrt()
    channels = noises.ndim - shares.ndim
    return (weights.reshape(*weights.shape[:2], *[1] * channels, *weights.shape[2:]) * noises).sum(0, keepdim=True)
