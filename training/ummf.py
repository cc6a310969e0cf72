"""The UMMF recipe (ResFlow-Tuner, arXiv 2603.22027): trains a LoRA that lets a frozen FLUX transformer read condition pictures."""

import logging
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..fluxir_core.flow import interpolate, sample_logit_normal
from .average import averaged


@dataclass(frozen=True)
class UMMFRecipe:
    """What the paper fixes (its defaults), and what depends on the base's size.

    Prodigy finds the step size by itself; `learning_rate` multiplies it. `drop_text` and `drop_image` are the shares of
    pictures that are shown without their prompt and without the condition. `average` is the moving average's decay.
    """

    steps: int = 30_000
    batch: int = 8
    learning_rate: float = 1.0
    weight_decay: float = 0.01
    drop_text: float = 0.1
    drop_image: float = 0.1
    guidance: float = 1.0
    average: float = 0.999


def train_ummf(host, batches, recipe, checkpoint, autocast=torch.bfloat16, seed=0):
    """Trains the adapter of `host` (a UMMFHost's LoRA; the transformer is frozen) by flow matching. Returns its averaged copy.

    `batches(step)` gives tokens `clean`, `degraded` (B, N, 64), `text`, `pooled` and `image_ids`.
    """
    from prodigyopt import Prodigy

    torch.manual_seed(seed)
    adapter = host.adapter.train()
    average = averaged(adapter, recipe.average)
    optimizer = Prodigy(
        adapter.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, use_bias_correction=True,
        safeguard_warmup=True,
    )  # fmt: skip

    for step in checkpoint.steps(recipe.steps, adapter, average, optimizer):
        batch = batches(step)
        z0, z1 = batch.clean, torch.randn_like(batch.clean)
        t = sample_logit_normal(len(z0), device=z0.device)
        prompted, shown = _kept(z0, recipe.drop_text), _kept(z0, recipe.drop_image)
        given = (batch.degraded * shown, batch.text * prompted, batch.pooled * prompted[:, 0])
        with torch.autocast(z0.device.type, autocast, enabled=autocast is not None):
            condition = host.prepare(*given, batch.image_ids)
            velocity = host.velocity(interpolate(z0, z1, t), t, condition, torch.full_like(t, recipe.guidance))
        loss = F.mse_loss(velocity.float(), z1 - z0)

        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(adapter)
        if step % 50 == 0:
            logging.info("ummf step %d loss %.4f d %.2e", step, loss.item(), optimizer.param_groups[0]["d"])
    return average.module.eval()


def _kept(like, dropped):
    """1 for each row of `like` that keeps its prompt or picture and 0 for a share of `dropped`, (B, 1, 1)."""
    return (torch.rand(len(like), 1, 1, device=like.device) >= dropped).to(like)
