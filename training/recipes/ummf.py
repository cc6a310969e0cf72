"""The UMMF recipe (ResFlow-Tuner, arXiv 2603.22027): trains a LoRA that lets a frozen FLUX transformer read condition images."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ...fluxir_core.flow.rectified_flow import interpolate, sample_logit_normal
from ..engine.fit import Objective


@dataclass(frozen=True)
class UMMFRecipe:
    """`drop_text` and `drop_image` are the shares of images that are shown without their prompt and without the condition;
    `guidance` is the output tokens' guidance embedding while training; `noise_tone` as FluxIRRecipe's."""

    drop_text: float = 0.1
    drop_image: float = 0.1
    guidance: float = 1.0
    noise_tone: float = 0.0


class UMMFObjective(Objective):
    """Flow matching of a UMMFHost's LoRA. A batch holds tokens `clean`, `degraded` (B, N, 64), `text`, `pooled`, `image_ids`.

    An image that loses its prompt is shown the `empty` one's (text (L, context), pooled (vec,)): T5's and CLIP's are not zero.
    """

    def __init__(self, host, recipe, empty):
        super().__init__(host)
        self.recipe, self.guidance, self.empty = recipe, recipe.guidance, empty

    def losses(self, batch, draws):
        z0, z1 = batch.clean, draws.noise(batch.clean.shape[1:], self.recipe.noise_tone)
        t = draws.each(lambda own: sample_logit_normal(1, own))
        prompted, shown = draws.kept(self.recipe.drop_text) > 0, draws.keeps(self.recipe.drop_image)
        text, pooled = (own.to(given) for own, given in zip(self.empty, (batch.text, batch.pooled)))
        text, pooled = torch.where(prompted, batch.text, text), torch.where(prompted[:, 0], batch.pooled, pooled)
        visible = None if all(shown) else torch.tensor(shown, device=z0.device)
        columns = batch.grid[1] // 2
        condition = self.host.prepare(batch.degraded, text, pooled, batch.image_ids, columns=columns, shown=visible)
        velocity = self.host.velocity(interpolate(z0, z1, t), t, condition, torch.full_like(t, self.guidance))
        flow = F.mse_loss(velocity.float(), z1 - z0)
        return {"loss": flow, "flow": flow}
