"""The seven restoration tasks for the miniature: its training images, degraded by each of them."""

import torch

from ...fluxir_core.degrade.presets import degrade_random
from ...fluxir_core.degrade.tasks import TASKS

RANDOM = 1 / 4
"""The share of images that are degraded at random as in `fluxir train miniature`, so that the adapter stays good at it."""
STRENGTHS = (0.15, 0.9)


def degrade_by_tasks(image, generator):
    """`image` (3, H, W) in [0, 1] degraded by one of the seven tasks at a random strength, or by several kinds at random."""

    def uniform(low=0.0, high=1.0):
        return low + (high - low) * torch.rand((), generator=generator).item()

    if uniform() < RANDOM:
        return degrade_random(image, generator)
    tasks = list(TASKS.values())
    degrade = tasks[torch.randint(len(tasks), (), generator=generator)]
    seed = torch.randint(2**31, (), generator=generator).item()
    return degrade(image[None], uniform(*STRENGTHS), [seed])[0]
