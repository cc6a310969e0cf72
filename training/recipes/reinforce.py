"""Trajectory-level reinforcement (FLUX-IR, arXiv 2410.04811): the ODE is drawn to the best of the paths around it."""

from dataclasses import dataclass, field
from functools import cache

import torch
from torch.nn import functional as F

from ...fluxir_core.flow.exploration import sample_gammas, trajectory
from ...fluxir_core.flow.rectified_flow import clean_estimate, flux_sigmas, interpolate, sample_timesteps
from ...fluxir_core.flux.tokens import unpack_latents
from ...fluxir_core.verify.aggregate import mean_z
from ...fluxir_core.verify.named import DEFAULT, PROMPTED, verifier_named
from ..engine.average import MovingAverage
from ..engine.fit import Objective

CLOSENESS = "closeness"


@dataclass(frozen=True)
class ReinforceRecipe:
    """`rollouts` trajectories of `rollout_steps` for each image; `points` states of the best are learned from.

    `reward` says which is best: "closeness" to the ground truth, or verifiers' names (`fluxir_core.verify.named`), whose weights are
    looked for in the folder `verifiers`; of several the mean z-score over an image's trajectories counts. `guidance` is the guidance
    embedding.
    `spread` bounds gamma, the share of the reverse SDE's noise. `pull` weighs the clean latent's error along the best
    trajectory, `flow` plain flow matching. The weights that explore are renewed every `refresh` steps. `noise_tone` as
    FluxIRRecipe's.
    """

    reward: list[str] = field(default_factory=lambda: [CLOSENESS])
    verifiers: str = "models/verifiers"
    rollouts: int = 4
    rollout_steps: int = 10
    shift: float = 1.15
    spread: float = 0.11
    points: int = 4
    pull: float = 1.0
    flow: float = 1.0
    refresh: int = 25
    guidance: float = 4.0
    noise_tone: float = 0.0

    def __post_init__(self):
        if not self.reward:
            raise ValueError(f"recipe: reward is empty; use [{CLOSENESS}] or names of verifiers.")
        for name, least in (("rollouts", 2), ("rollout_steps", 2), ("points", 1), ("refresh", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"recipe: {name} is {getattr(self, name)}; use {least} or more.")


def closeness(latents, batch):
    """The reward: PSNR in dB of latents (B, N, 64), of unit peak, against the clean ones; (B,)."""
    return -10 * torch.log10((latents - batch.clean).square().flatten(1).mean(1))


@cache
def rollout_sigmas(steps, shift):
    """`flux_sigmas` as numbers, a tuple."""
    return tuple(flux_sigmas(steps, shift).tolist())


def check_rewards(recipe):
    """Raises ValueError where a reward of `recipe` (ReinforceRecipe) cannot judge one image by itself, without a prompt."""
    for name in recipe.reward:
        if name in (*PROMPTED, DEFAULT):
            why = "needs a prompt" if name in PROMPTED else "compares images with each other"
            raise ValueError(f"recipe: the reward {name} {why}; use {CLOSENESS}, aesthetic, or metrics such as niqe and musiq.")


def rewards_named(recipe, decode, device="cpu"):
    """{name: reward} of `recipe` (ReinforceRecipe). Raises ValueError, in one sentence, where a verifier or its weights are missing."""
    made = {}
    for name in recipe.reward:
        if name == CLOSENESS:
            made[name] = closeness
        else:
            made[name] = reward_of_verifier(verifier_named(name, recipe.verifiers, device=device), decode)
    return made


def reward_of_verifier(verifier, decode):
    """The reward of a verifier (`fluxir_core.verify.Verifier`) that sees decoded images; `decode` takes latents (B, 16, h, w).

    It judges in full precision, whatever the model runs in.
    """

    def reward(latents, batch):
        with torch.autocast(latents.device.type, enabled=False):
            return verifier(decode(unpack_latents(latents, *batch.grid)))

    return reward


class ReinforceObjective(Objective):
    """Reinforces the `adapter` of `host`, by default the host's own.

    At every step weights of a while ago walk from one noise z_1 an image along the modulated SDE (`trajectory`) with several
    gammas, the first of them 0, the ODE. `rewards` {name: reward(latents, batch) -> (B,)}, higher is better, say which end is best
    (`rewards_named`). Along the best one, z*, with z* -> z*_{k+1} the SDE's own step,
    the ODE is aligned:
        A |v(z*_k, t_k) - (z*_k - z*_{k+1}) / (t_k - t_{k+1})|^2 + pull |z*_k - t_k v(z*_k, t_k) - z_0|^2 + flow L_FM,
    A = (R* - R_ode) / std(R), 0 where the ODE itself is best. This is FLUX-IR's alignment of trajectories in local form, one
    state at a time, which needs no gradient through the chain. One call of the model sees `points` + 1 times the micro-batch.
    """

    def __init__(self, host, recipe, rewards=None, adapter=None):
        super().__init__(host, adapter)
        self.recipe, self.guidance, self.rewards = recipe, recipe.guidance, rewards or {CLOSENESS: closeness}
        trained = (parameter for parameter in self.adapter.parameters() if parameter.requires_grad)
        self.explorer = MovingAverage(trained, 0.0)
        self.stateful = {"explorer": self.explorer}
        self.sigmas = rollout_sigmas(recipe.rollout_steps, recipe.shift)

    def begin(self, step):
        if step % self.recipe.refresh == 0:
            self.explorer.update()

    def losses(self, batch, draws):
        recipe, z0 = self.recipe, batch.clean
        z1 = draws.noise(z0.shape[1:], recipe.noise_tone)
        with self.explorer.applied(), torch.no_grad():
            states, rewards, best = self.explore(batch, z1, draws)
        advantage = ((rewards.amax(0) - rewards[0]) / rewards.std(0).clamp(min=1e-6)).clamp(min=0)

        rows = torch.arange(len(z0), device=z0.device).repeat(recipe.points)
        k = draws.each(lambda own: torch.randint(recipe.rollout_steps, (1, recipe.points), generator=own)).T.flatten()
        z_k, z_next = (states[index, best[rows], rows] for index in (k, k + 1))
        t_k, t_next = (z0.new_tensor(self.sigmas)[index] for index in (k, k + 1))
        target = (z_k - z_next) / (t_k - t_next)[:, None, None]
        t = draws.each(lambda own: sample_timesteps(1, generator=own))
        asked = torch.cat([z_k, interpolate(z0, z1, t)]), torch.cat([t_k, t])
        along, plain = call(self.host, batch, *asked, self.guidance).float().split([len(rows), len(z0)])
        align = (advantage[rows] * (along - target).square().flatten(1).mean(1)).mean()
        pull, flow = F.mse_loss(clean_estimate(z_k, along, t_k), z0[rows]), F.mse_loss(plain, z1 - z0)
        return {
            "loss": align + recipe.pull * pull + recipe.flow * flow,
            "align": align,
            "pull": pull,
            "flow": flow,
            "reward": rewards[0].mean(),
            "gain": (rewards.amax(0) - rewards[0]).mean(),
        }

    def explore(self, batch, z1, draws):
        """`rollouts` trajectories from z1 (B, N, 64): states (S + 1, R, B, N, 64), rewards (R, B), the best (B,).

        The first is the ODE's; another is best only where its reward is higher.
        """
        recipe, condition = self.recipe, prepare_condition(self.host, batch, 1)
        guidance = z1.new_full((len(z1),), self.guidance)
        gammas = draws.each(lambda own: sample_gammas(1, recipe.rollouts, recipe.spread, generator=own).T).T

        def velocity(x, t):
            return self.host.velocity(x, t, condition, guidance).float()

        def normal(shape):
            return draws.normal(shape[1:])

        walked = [trajectory(velocity, z1, self.sigmas, own, normal)[0] for own in gammas]
        scores = {name: torch.stack([own(states[-1], batch) for states in walked]) for name, own in self.rewards.items()}
        rewards = mean_z(scores) if len(scores) > 1 else next(iter(scores.values()))
        return torch.stack(walked, 1), rewards, rewards.argmax(0)


def prepare_condition(host, batch, copies):
    """The host's condition for `copies` of the batch's images, copy by copy."""
    given = (value.repeat(copies, 1, 1) for value in (batch.degraded, batch.text))
    return host.prepare(*given, batch.pooled.repeat(copies, 1), batch.image_ids, columns=batch.grid[1] // 2)


def call(host, batch, x, t, guidance):
    """The host's velocity for copies of a batch's images.

    Args:
        host: FluxIRHost, UMMFHost or LoRAHost.
        batch: Batch.
        x: x_t, (copies * B, N, 64), copy by copy.
        t: (copies * B,) in [0, 1].
        guidance: a number.

    Returns:
        (copies * B, N, 64).
    """
    return host.velocity(x, t, prepare_condition(host, batch, len(x) // len(batch.clean)), torch.full_like(t, guidance))
