"""Sigmas and the Euler sampler, written on `velocity(x, sigma) -> v` alone."""

import math
from itertools import pairwise

import torch

LEVELS = 10_000
"""Sigmas that ComfyUI's FLUX knows: its schedulers choose among them."""


def flux_sigmas(steps, shift=1.15):
    """Sigmas from 1 to 0, shape (steps + 1,): those of ComfyUI's `simple` scheduler, the uniform grid under FLUX's time shift.

    Each is the next of LEVELS above the grid's, bit for bit as ComfyUI computes it. `shift` is mu in
    sigma = e^mu / (e^mu + 1/t - 1); 0 is the uniform grid. Raises ValueError when steps < 1.
    """
    if steps < 1:
        raise ValueError(f"flux_sigmas: steps is {steps}; use at least 1.")
    levels = [LEVELS - int(step * (LEVELS / steps)) for step in range(steps)]
    t, ratio = torch.tensor(levels, dtype=torch.float32) / LEVELS, math.exp(shift)
    return torch.cat([ratio / (ratio + (1 / t - 1)), t.new_zeros(1)])


def check_sigmas(sigmas, who="TTS"):
    """Raises ValueError, which begins with `who`, unless `sigmas` (S + 1,) fall in at least one step from at most 1 to 0."""
    values = [float(sigma) for sigma in sigmas]
    if len(values) < 2:
        raise ValueError(f"{who}: the sigmas hold no step; use at least two sigmas.")
    if not all(b < a for a, b in pairwise(values)) or not values[0] <= 1.001:
        raise ValueError(f"{who}: the sigmas {values} do not fall from 1 or less; use a flow-matching model's sigmas.")
    if values[-1] != 0:
        raise ValueError(f"{who}: the last sigma is {values[-1]:.3g}; a search needs the whole way to 0, so do not split it there.")


def euler(velocity, x, sigmas, callback=None):
    """Integrates dx = v dsigma along `sigmas` (S + 1,), falling, with one velocity call a step.

    `velocity(x, sigma)` takes x (B, ...) and sigma (B,). `callback(step, x)` runs after every step. Returns x at sigmas[-1].
    """
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        x = x + (following - sigma) * velocity(x, sigma.expand(len(x)))
        if callback:
            callback(step, x)
    return x
