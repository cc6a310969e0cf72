"""Rectified flow: z_t = (1 - t) z_0 + t z_1, velocity v = z_1 - z_0 (z_0 clean, z_1 noise, t in [0, 1]); its sigmas and Euler's sampler."""

import math
from itertools import pairwise

import torch


def broadcast(t, like):
    """`t` (B,) reshaped so that it multiplies `like` (B, ...)."""
    return t.reshape(-1, *[1] * (like.ndim - 1))


def interpolate(z0, z1, t):
    """z_t for z_0, z_1 of one shape (B, ...) and t (B,) in [0, 1]."""
    t = broadcast(t, z0)
    return (1 - t) * z0 + t * z1


def clean_estimate(z_t, velocity, t):
    """The clean latent that `velocity` points to from z_t: z_t - t v. Shapes (B, ...), t (B,)."""
    return z_t - broadcast(t, z_t) * velocity


def sample_timesteps(count, epsilon=0.05, generator=None, device=None):
    """Draws t = f(u): u ~ U(-epsilon, 1 + epsilon) clamped to [0, 1] (FluxIR, equations 5 and 6).

    A share epsilon / (1 + 2 epsilon) of the draws is exactly 1, the start of sampling, and as many are exactly 0.

    Args:
        count: how many.
        epsilon: the margin; 0 is the uniform distribution, which almost never trains the starting point.
        generator: torch.Generator; None for torch's own.
        device: of the result, and of the generator; None for torch's default.

    Returns:
        (count,) in [0, 1].
    """
    u = torch.rand(count, generator=generator, device=device) * (1 + 2 * epsilon) - epsilon
    return u.clamp(0, 1)


def sample_logit_normal(count, generator=None, device=None):
    """t = sigmoid(n), n ~ N(0, 1): Stable Diffusion 3's sampler, FluxIR's ablation of f(u). Returns (count,) in (0, 1)."""
    return torch.sigmoid(torch.randn(count, generator=generator, device=device))


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


def check_sigmas(sigmas):
    """Raises ValueError unless `sigmas` (S + 1,) fall in at least one step from at most 1 to 0."""
    values = [float(sigma) for sigma in sigmas]
    if len(values) < 2:
        raise ValueError("the sigmas hold no step; use at least two sigmas.")
    if not all(b < a for a, b in pairwise(values)) or not values[0] <= 1.001:
        raise ValueError(
            f"the sigmas, {values[0]:.3g} to {values[-1]:.3g}, do not fall from 1 or less; use a flow-matching model's sigmas."
        )
    if values[-1] != 0:
        raise ValueError(f"the last sigma is {values[-1]:.3g}; a search needs the whole way to 0, so do not split it there.")


def euler(velocity, x, sigmas, callback=None):
    """Integrates dx = v dsigma, with one velocity call a step.

    Args:
        velocity: `velocity(x, sigma)` takes x (B, ...) and sigma (B,).
        x: the state at the first sigma, (B, ...).
        sigmas: (S + 1,), falling.
        callback: `callback(step, x)` runs after every step; None for nothing.

    Returns:
        The state at the last sigma, (B, ...).
    """
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        x = x + (following - sigma) * velocity(x, sigma.expand(len(x)))
        if callback:
            callback(step, x)
    return x
