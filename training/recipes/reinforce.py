"""Trajectory-level reinforcement (FLUX-IR, arXiv 2410.04811): the ODE is drawn to the best of the paths around it."""

import logging
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ...fluxir_core.flow.exploration import sample_gammas, trajectory
from ...fluxir_core.flow.rectified_flow import clean_estimate, flux_sigmas, interpolate, sample_timesteps
from ...fluxir_core.flux.tokens import unpack_latents
from ..engine.average import MovingAverage


@dataclass(frozen=True)
class ReinforceRecipe:
    """`rollouts` trajectories of `rollout_steps` for each image; `points` states of the best are learned from.

    `spread` bounds gamma, the share of the reverse SDE's noise. `pull` weighs the clean latent's error along the best
    trajectory, `flow` plain flow matching. The weights that explore are renewed every `refresh` steps. `guidance` is the adapter's.
    """

    steps: int
    learning_rate: float
    guidance: float
    rollouts: int = 4
    rollout_steps: int = 10
    shift: float = 1.15
    spread: float = 0.11
    points: int = 4
    pull: float = 1.0
    flow: float = 1.0
    refresh: int = 25
    average: float = 0.98


def closeness(latents, batch):
    """The reward: PSNR in dB of latents (B, N, 64), of unit peak, against the clean ones; (B,)."""
    return -10 * torch.log10((latents - batch.clean).square().flatten(1).mean(1))


def reward_of_verifier(verifier, decode):
    """The reward of a verifier (`fluxir_core.verify.Verifier`) that sees decoded images; `decode` takes latents (B, 16, h, w).

    It judges in full precision, whatever the model runs in.
    """

    def reward(latents, batch):
        with torch.autocast(latents.device.type, enabled=False):
            return verifier(decode(unpack_latents(latents, *batch.grid)))

    return reward


def train_reinforced(host, batches, recipe, checkpoint, reward=closeness, autocast=torch.bfloat16, seed=0):
    """Reinforces the adapter of `host` (a FluxIRHost or UMMFHost). Returns it with averaged weights.

    At every step weights of a while ago walk from one noise z_1 an image along the modulated SDE (`trajectory`) with several
    gammas, the first of them 0, the ODE. `reward(latents, batch)` (B,), higher is better, says
    which end is best: the closeness to the ground truth, or any verifier (`reward_of_verifier`). Along the best one, z*, with
    z* -> z*_{k+1} the SDE's own step, the ODE is aligned:
        A |v(z*_k, t_k) - (z*_k - z*_{k+1}) / (t_k - t_{k+1})|^2 + pull |z*_k - t_k v(z*_k, t_k) - z_0|^2 + flow L_FM,
    A = (R* - R_ode) / std(R), 0 where the ODE itself is best. This is FLUX-IR's alignment of trajectories in local form, one
    state at a time, which needs no gradient through the chain. `batches(step)` gives Batches.
    """
    torch.manual_seed(seed)
    adapter = host.adapter.train()
    trainable = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    average, explorer = MovingAverage(trainable, recipe.average), MovingAverage(trainable, 0.0)
    optimizer = torch.optim.AdamW(trainable, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    sigmas = flux_sigmas(recipe.rollout_steps, recipe.shift)
    precision = dict(dtype=autocast or torch.float32, enabled=autocast is not None)

    for step in checkpoint.steps(recipe.steps, adapter, average, explorer, optimizer):
        if step % recipe.refresh == 0:
            explorer.update()
        batch = batches(step)
        z0, z1 = batch.clean, torch.randn_like(batch.clean)

        with explorer.applied(), torch.no_grad(), torch.autocast(z0.device.type, **precision):
            states, rewards, best = explore(host, batch, z1, sigmas, recipe, reward)
        advantage = ((rewards.amax(0) - rewards[0]) / rewards.std(0).clamp(min=1e-6)).clamp(min=0)

        rows = torch.arange(len(z0), device=z0.device).repeat(recipe.points)
        k = torch.randint(recipe.rollout_steps, (len(rows),), device=z0.device)
        z_k, z_next = (states[index, best[rows], rows] for index in (k, k + 1))
        t_k, t_next = (sigmas.to(z0)[index] for index in (k, k + 1))
        target = (z_k - z_next) / (t_k - t_next)[:, None, None]
        t = sample_timesteps(len(z0), device=z0.device)
        with torch.autocast(z0.device.type, **precision):
            velocity = call(host, batch, torch.cat([z_k, interpolate(z0, z1, t)]), torch.cat([t_k, t]), recipe.guidance).float()
        along, plain = velocity.split([len(rows), len(z0)])
        align = (advantage[rows] * (along - target).square().flatten(1).mean(1)).mean()
        pull = F.mse_loss(clean_estimate(z_k, along, t_k), z0[rows])
        loss = align + recipe.pull * pull + recipe.flow * F.mse_loss(plain, z1 - z0)

        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1, (step + 1) / 20, 2.5 * (1 - step / recipe.steps))
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        if step % 10 == 0:
            gain = (rewards.amax(0) - rewards[0]).mean().item()
            logging.info(
                "reinforce step %d loss %.4f pull %.4f reward %.3f best +%.3f",
                step,
                loss.item(),
                pull.item(),
                rewards[0].mean().item(),
                gain,
            )
    average.apply()
    return adapter.eval()


def explore(host, batch, z1, sigmas, recipe, reward):
    """`recipe.rollouts` trajectories from z1 (B, N, 64): states (S + 1, R, B, N, 64), rewards (R, B), the best (B,).

    The first is the ODE's; another is best only where its reward is higher.
    """
    gammas = sample_gammas(len(z1), recipe.rollouts, recipe.spread)
    everyone = z1.repeat(recipe.rollouts, 1, 1)
    condition = prepare_condition(host, batch, recipe.rollouts)
    guidance = z1.new_full((len(everyone),), recipe.guidance)
    states, _ = trajectory(lambda x, t: host.velocity(x, t, condition, guidance).float(), everyone, sigmas, gammas.flatten())
    states = states.unflatten(1, gammas.shape)
    rewards = torch.stack([reward(ends, batch) for ends in states[-1]])
    return states, rewards, rewards.argmax(0)


def prepare_condition(host, batch, copies):
    """The host's condition for `copies` of the batch's images, copy by copy."""
    given = (value.repeat(copies, 1, 1) for value in (batch.degraded, batch.text))
    return host.prepare(*given, batch.pooled.repeat(copies, 1), batch.image_ids)


def call(host, batch, x, t, guidance):
    """The host's velocity at x (whole copies of the batch's images, N, 64) and t."""
    return host.velocity(x, t, prepare_condition(host, batch, len(x) // len(batch.clean)), torch.full_like(t, guidance))
