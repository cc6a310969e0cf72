"""Whole trajectories of the restoration flow, and exploration around them (FLUX-IR, arXiv 2410.04811)."""

import math

import torch

from .kernels import ODE, OU
from .rectified_flow import broadcast


def sample_gammas(images, rollouts, spread=0.11, jitter=0.01, generator=None):
    """Draws how far each rollout strays from each image's ODE: gamma ~ N(u, jitter^2), u ~ U(-spread, spread) an image.

    Args:
        images: how many.
        rollouts: how many of each image.
        spread: bounds |u|.
        jitter: standard deviation of an image's rollouts about its u.
        generator: torch.Generator on the CPU; None for torch's own.

    Returns:
        (rollouts, images); the first row is 0, the ODE itself.
    """
    center = spread * (2 * torch.rand(1, images, generator=generator) - 1)
    gammas = center + jitter * torch.randn(rollouts, images, generator=generator)
    gammas[0] = 0
    return gammas


def trajectory(velocity, x, sigmas, gammas=None, normal=torch.randn):
    """Follows x on its way along the sigmas, by Euler steps or by the modulated SDE of FLUX-IR.

    The SDE is, in velocity form,
        dz = (v + gamma^2 z1_hat / (1 - t)) dt + gamma sqrt(2 t / (1 - t)) dw,   z1_hat = z + (1 - t) v,
    run from noise to data: gamma 0 is the ODE, 1 the whole reverse SDE, and every gamma has the same marginals. Between two
    sigmas the clean estimate is frozen and the noise estimate followed exactly: `kernels.OU` with a = sqrt(2) |gamma|.
    That is singular at t = 1, where all noise would be drawn anew: the step from there is the ODE's, and so is the last one,
    to the clean estimate.

    Args:
        velocity: `velocity(x, sigma)` takes x (B, ...) and sigma (B,).
        x: the state at the first sigma, (B, ...).
        sigmas: (S + 1,), falling.
        gammas: (B,), of the SDE; None for Euler steps.
        normal: `normal(shape)` draws the SDE's noise, standard normal.

    Returns:
        The states (S + 1, B, ...) and the velocities (S, B, ...).
    """
    states, velocities, ode = [x], [], ODE()
    if gammas is not None:
        explore = OU(math.sqrt(2) * broadcast(gammas.detach().cpu().double(), x))
    for t, s in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        v = velocity(x, torch.full((len(x),), t, device=x.device))
        if gammas is None or t >= 1 or s <= 0:
            x, _ = ode(x, v, t, s)
        else:
            x, _ = explore(x, v, t, s, normal(x.shape).to(x))
        states.append(x)
        velocities.append(v)
    return torch.stack(states), torch.stack(velocities)
