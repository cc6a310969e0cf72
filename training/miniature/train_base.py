"""Stage 2 of the miniature: mini-FLUX, a text-to-image rectified flow on the latents of the training images."""

import logging
from typing import Any

import torch
from torch.nn import functional as F

from ...fluxir_core.flow.rectified_flow import interpolate, sample_timesteps
from ..diffusers_host.transformer import call_transformer, exact_time
from ..engine.average import MovingAverage
from ..engine.draws import Draws
from .text import CONTEXT_DIM, POOLED_DIM

GUIDANCE = 4.0
"""The guidance embedding the miniature is trained with, and used with: FluxGen's value for FLUX.1-dev."""

MINI_FLUX: dict[str, Any] = dict(
    in_channels=64,
    num_layers=1,
    num_single_layers=4,
    attention_head_dim=128,
    num_attention_heads=2,
    joint_attention_dim=CONTEXT_DIM,
    pooled_projection_dim=POOLED_DIM,
    guidance_embeds=True,
    axes_dims_rope=(16, 56, 56),
)
"""One double and four single blocks, 256 wide: 6.8 M parameters, 13.7 MB in bfloat16."""


def build_mini_flux() -> Any:
    """A FluxTransformer2DModel of the miniature's size, freshly initialized with adaLN and the output at zero."""
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(**MINI_FLUX)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or ("proj_out" in name and "single" not in name) or (".linear." in name and "norm" in name):
            torch.nn.init.zeros_(parameter)
    return model


def flow_optimizers(model, learning_rate):
    """Muon for the blocks' matrices and AdamW for all other parameters of a transformer."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "transformer_blocks" in name else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)]


def train_base(batches, steps, checkpoint, device="cpu", learning_rate=2e-3, seed=0, noise_tone=0.0):
    """Trains mini-FLUX on clean images by flow matching; the prompt is dropped for 30 % of them.

    Args:
        batches: MiniatureBatches.
        steps: how many.
        checkpoint: training.miniature.checkpoint.Checkpoint.
        device: where it is trained.
        learning_rate: the highest, after 100 steps.
        seed: of its weights and noise.
        noise_tone: as FluxIRRecipe's; 0 for none.

    Returns:
        A FluxTransformer2DModel with averaged weights, frozen, in eval mode.
    """
    torch.manual_seed(seed)
    model = build_mini_flux().to(device).train()
    average = MovingAverage(model.parameters(), 0.999)
    hooks = exact_time(model)
    optimizers = flow_optimizers(model, learning_rate)
    for step in checkpoint.steps(steps, model, average, *optimizers):
        batch, draws = batches.whole(step), Draws(seed, step, range(batches.rows(step)), device)
        noise = draws.noise(batch.clean.shape[1:], noise_tone)
        t = draws.each(lambda own: sample_timesteps(1, generator=own))
        kept = draws.kept(0.3)
        with torch.autocast(noise.device.type, torch.bfloat16):
            velocity = call_transformer(
                model,
                interpolate(batch.clean, noise, t),
                t,
                batch.text * kept,
                batch.pooled * kept[:, 0],
                batch.image_ids,
                torch.full_like(t, GUIDANCE),
            )
        loss = F.mse_loss(velocity.float(), noise - batch.clean)
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(1, step / 100) * min(1, 2.5 * (1 - step / steps))
            optimizer.step()
            optimizer.zero_grad()
        average.update()
        if step % 50 == 0:
            logging.info("base step %d loss %.4f", step, loss.item())
    for hook in hooks:
        hook.remove()
    average.apply()
    return model.requires_grad_(False).eval()
