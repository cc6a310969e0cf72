"""The seven restoration tasks for the miniature: its training images, degraded by each of them."""

import torch

from ...fluxir_core.degrade.presets import degrade_random
from ...fluxir_core.degrade.tasks import TASKS
from .autoencoder import open_autoencoder
from .bank import draw_bank, encode_bank
from .batches import MiniatureBatches

RANDOM = 1 / 4
"""The share of images that are degraded at random as in `fluxir train miniature`, so that the adapter stays good at it."""
STRENGTHS = (0.15, 0.9)


def task_versions(image, plan, index):
    """`plan.versions` degradations of `image` (3, H, W) uint8, the `index`-th of the bank, by tasks drawn at random."""
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + index + 500_000_007)

    def uniform(low=0.0, high=1.0):
        return low + (high - low) * torch.rand((), generator=generator).item()

    clean, versions, tasks = image.float() / 255, [], list(TASKS.values())
    for _ in range(plan.versions):
        if uniform() < RANDOM:
            versions.append(degrade_random(clean, generator))
        else:
            degrade = tasks[torch.randint(len(tasks), (), generator=generator)]
            seed = torch.randint(2**31, (), generator=generator).item()
            versions.append(degrade(clean[None], uniform(*STRENGTHS), [seed])[0])
    return (torch.stack(versions) * 255).round().byte()


class TaskBatches(MiniatureBatches):
    """Crops of the miniature's training images under the seven tasks, with the empty prompt.

    `plan` (recipe.MiniatureSize) says what is drawn; bank and latents are made once and kept in `work`. `random_only` degrades all
    of them at random instead. `decode` is that of the autoencoder in the model folder `folder`, on latents (B, 16, h, w).
    """

    description = (
        "procedural dead-leaves scenes and crops of photos bundled with scikit-image, degraded by seven restoration tasks and "
        "by random mixtures"
    )

    def __init__(self, folder, plan, batch, work, seed=0, device="cpu", random_only=False):
        work.mkdir(parents=True, exist_ok=True)
        autoencoder = open_autoencoder(folder, device)
        made = () if random_only else (task_versions, "tasks")
        bank = encode_bank(plan, work, autoencoder, *draw_bank(plan, work), *made)
        super().__init__(plan.size, batch, False, bank, seed, device)
        self.decode = autoencoder.decode

    def whole(self, step):
        """The whole batch of step `step`."""
        return self(step, range(self.rows(step)))
