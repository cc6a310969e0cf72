"""The FluxIR recipe (arXiv 2504.15159, section 3.3): trains an adapter on a frozen FLUX transformer."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ...fluxir_core.flow.rectified_flow import clean_estimate, interpolate, sample_logit_normal, sample_timesteps
from ...fluxir_core.flux.tokens import unpack_latents
from ..engine.fit import Objective


@dataclass(frozen=True)
class FluxIRRecipe:
    """What the paper fixes.

    `epsilon` is f(u)'s margin (equation 6); None takes Stable Diffusion 3's logit-normal timesteps, the paper's ablation.
    `alpha` weighs the pixel loss (equation 10); 0 leaves it out. For it `pixel_crop` latents a side of every
    `pixel_stride`-th image are decoded. `noise_tone` is the standard deviation of a random offset of each channel of the
    first noise. A small model otherwise reads the image's tone from the noise's mean, and restores another tone from every
    seed; FLUX.1 needs none.
    """

    epsilon: float | None = 0.05
    alpha: float = 1.0
    pixel_crop: int = 8
    pixel_stride: int = 1
    noise_tone: float = 0.0


class FluxIRObjective(Objective):
    """Velocity MSE, and the L1 of decoded pixels (equations 7 to 10), of a FluxIRHost's adapter.

    A batch holds tokens `clean`, `degraded` (B, N, 64), `text`, `pooled`, `image_ids` and the latent `grid` (h, w); `decode`
    is the VAE's decoder on latents (B, 16, h, w) in network space.
    """

    def __init__(self, host, decode, recipe):
        super().__init__(host)
        self.decode, self.recipe, self.guidance = decode, recipe, host.adapter.config.guidance

    def losses(self, batch, draws):
        z0, z1 = batch.clean, draws.noise(batch.clean.shape[1:], self.recipe.noise_tone)
        t = draws.each(self._timestep)
        z_t = interpolate(z0, z1, t)
        condition = self.host.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
        velocity = self.host.velocity(z_t, t, condition, torch.full_like(t, self.guidance)).float()
        flow = F.mse_loss(velocity, z1 - z0)
        if not self.recipe.alpha:
            return {"loss": flow, "flow": flow}
        pixel = self._pixel_loss(clean_estimate(z_t, velocity, t), z0, batch.grid, draws)
        return {"loss": flow + self.recipe.alpha * pixel, "flow": flow, "pixel": pixel}

    def _timestep(self, generator):
        if self.recipe.epsilon is None:
            return sample_logit_normal(1, generator)
        return sample_timesteps(1, self.recipe.epsilon, generator)

    def _pixel_loss(self, estimate, clean, grid, draws):
        """The mean over every `pixel_stride`-th image of the batch that the rows belong to."""
        stride, crop = self.recipe.pixel_stride, [min(self.recipe.pixel_crop, extent) for extent in grid]
        tops, lefts = (draws.below(extent - side + 1) for extent, side in zip(grid, crop))
        chosen = [i for i, row in enumerate(draws.rows) if row % stride == 0]
        if not chosen:
            return estimate.new_zeros(())
        windows = [(slice(None), slice(tops[i], tops[i] + crop[0]), slice(lefts[i], lefts[i] + crop[1])) for i in chosen]
        estimate, clean = (unpack_latents(tokens[chosen], *grid) for tokens in (estimate, clean))
        loss = pixel_loss(self.decode, estimate, clean, windows)
        return loss * (len(chosen) * stride / len(draws.rows))


def pixel_loss(decode, estimate, clean, windows):
    """The L1 of decoded pixels on a window of each latent.

    It is equation 9 with the estimate z_t - t v in the place of z_0 + t v_p: the same error, of opposite sign, on latents that
    the decoder was made for instead of noisy ones.

    Args:
        decode: latents -> images in [0, 1].
        estimate: z_0's, (B, C, h, w).
        clean: z_0, (B, C, h, w).
        windows: B indices into (C, h, w), of one size.

    Returns:
        |D(z0_hat) - D(z_0)|_1, the mean over the pixels: a tensor of one value.
    """
    estimate, clean = (torch.stack([own[window] for own, window in zip(z, windows)]) for z in (estimate, clean))
    with torch.no_grad():
        target = decode(clean)
    return F.l1_loss(decode(estimate), target)
