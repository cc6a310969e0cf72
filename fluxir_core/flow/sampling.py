"""Sigmas and the Euler sampler, written on `velocity(x, sigma) -> v` alone."""

import math

import torch


def flux_sigmas(steps, shift=1.15):
    """Sigmas from 1 to 0, shape (steps + 1,): the uniform grid under FLUX's time shift (ComfyUI's `simple` scheduler).

    `shift` is mu in sigma = e^mu / (e^mu + 1/t - 1); 0 is the uniform grid. Raises ValueError when steps < 1.
    """
    if steps < 1:
        raise ValueError(f"flux_sigmas: steps is {steps}; use at least 1.")
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    ratio = math.exp(shift)
    return (ratio * t / (1 + (ratio - 1) * t)).float()


def euler(velocity, x, sigmas, callback=None):
    """Integrates dx = v dsigma along `sigmas` (S + 1,), falling, with one velocity call a step.

    `velocity(x, sigma)` takes x (B, ...) and sigma (B,). `callback(step, x)` runs after every step. Returns x at sigmas[-1].
    """
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        x = x + (following - sigma) * velocity(x, sigma.expand(len(x)))
        if callback:
            callback(step, x)
    return x
