"""A search on a mixture of Gaussians, whose velocity and best reward are known: what the tests of searches share."""

import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, flux_sigmas
from comfyui_fluxir.fluxir_core.searches.task import Task
from comfyui_fluxir.training.studies.gaussian_mixture import GaussianMixture

UNIFORM = flux_sigmas(25, 0)
MIXTURE = GaussianMixture(16)
NOISE = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))


def task(**changes):
    return Task(MIXTURE.velocity, lambda x: x, lambda x: {"reward": MIXTURE.reward(x)}, **changes)


def baseline():
    return euler(MIXTURE.velocity, NOISE, UNIFORM)
