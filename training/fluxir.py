"""The FluxIR recipe (arXiv 2504.15159, section 3.3): trains an adapter on a frozen FLUX transformer."""

import logging
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..fluxir_core.flow import clean_estimate, interpolate, sample_logit_normal, sample_timesteps
from ..fluxir_core.tokens import unpack_latents
from .average import averaged


@dataclass(frozen=True)
class FluxIRRecipe:
    """What the paper fixes, and what depends on the base's size.

    `epsilon` is f(u)'s margin (equation 6); None takes Stable Diffusion 3's logit-normal timesteps, the paper's ablation.
    `alpha` weighs the pixel loss (equation 10); 0 leaves it out. `pixel_crop` latents a side of `pixel_batch` pictures are
    decoded for it. The learning rate warms up over `warmup` steps and falls linearly over the last 40 %.
    """

    steps: int
    batch: int
    learning_rate: float
    epsilon: float | None = 0.05
    alpha: float = 1.0
    pixel_crop: int = 8
    pixel_batch: int = 16
    warmup: int = 100
    average: float = 0.999


def pixel_loss(decode, estimate, clean, crop):
    """|D(z0_hat) - D(z_0)|_1 on one random `crop` x `crop` window of latents (B, C, h, w); `decode` gives [0, 1] pictures.

    This is equation 9 with the estimate z_t - t v in the place of z_0 + t v_p: the same error, of opposite sign, on latents
    that the decoder was made for instead of noisy ones.
    """
    height, width = clean.shape[-2:]
    top = torch.randint(height - crop + 1, ()).item() if height > crop else 0
    left = torch.randint(width - crop + 1, ()).item() if width > crop else 0
    window = (..., slice(top, top + crop), slice(left, left + crop))
    with torch.no_grad():
        target = decode(clean[window])
    return F.l1_loss(decode(estimate[window]), target)


def train_fluxir(host, batches, decode, recipe, checkpoint, autocast=torch.bfloat16, seed=0):
    """Trains the adapter of `host` (a DiffusersHost with its transformer frozen) and returns its averaged copy.

    `batches(step)` gives tokens `clean`, `degraded` (B, N, 64), `text`, `pooled`, `image_ids` and the latent `grid` (h, w);
    `decode` is the VAE's decoder on latents (B, 16, h, w) in network space.
    """
    torch.manual_seed(seed)
    adapter = host.adapter.train()
    average = averaged(adapter, recipe.average)
    trainable = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    guidance = adapter.config.guidance

    for step in checkpoint.steps(recipe.steps, adapter, average, optimizer):
        batch = batches(step)
        z0, z1 = batch.clean, torch.randn_like(batch.clean)
        if recipe.epsilon is None:
            t = sample_logit_normal(len(z0), device=z0.device)
        else:
            t = sample_timesteps(len(z0), recipe.epsilon, device=z0.device)
        z_t = interpolate(z0, z1, t)
        with torch.autocast(z0.device.type, autocast, enabled=autocast is not None):
            condition = host.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
            velocity = host.velocity(z_t, t, condition, torch.full_like(t, guidance)).float()
        loss = flow_loss = F.mse_loss(velocity, z1 - z0)

        if recipe.alpha:
            few = slice(recipe.pixel_batch)
            estimate = unpack_latents(clean_estimate(z_t[few], velocity[few], t[few]), *batch.grid)
            with torch.autocast(z0.device.type, autocast, enabled=autocast is not None):
                loss = loss + recipe.alpha * pixel_loss(decode, estimate, unpack_latents(z0[few], *batch.grid), recipe.pixel_crop)

        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1, (step + 1) / recipe.warmup, 2.5 * (1 - step / recipe.steps))
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(adapter)
        if step % 50 == 0:
            logging.info("fluxir step %d loss %.4f flow %.4f", step, loss.item(), flow_loss.item())
    return average.module.eval()
