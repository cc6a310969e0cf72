"""How well a training run restores the images that it does not see."""

import torch

from ...fluxir_core.data.shards import write_whole
from ...fluxir_core.flow.rectified_flow import flux_sigmas
from ...fluxir_core.flux.tokens import unpack_latents
from ...fluxir_core.image.files import png_bytes
from ...fluxir_core.image.quality import quality
from ..engine.draws import Draws

STEPS, SHIFT, SEED = 20, 1.15, 0


class Validation:
    """Restores `batches.validation` one image at a time, always from the same noise, in STEPS steps.

    Calling it with the model, the step and a function that says whether to stop writes `folder`/step-00000100.png, a row
    (degraded, restored, original through the autoencoder) for each image, in the process that is `main`, and returns the means
    {"validation/psnr", "validation/ssim", "validation/gmsd"} against the latter. Stopped, it writes nothing and returns {}.
    """

    def __init__(self, batches, decode, folder, main=True):
        self.batches, self.decode, self.folder, self.main = batches, decode, folder, main

    def lacks(self, step):
        """Whether the images of `step` are not written yet."""
        return not self._path(step).exists()

    def _path(self, step):
        return self.folder / f"step-{step:08d}.png"

    @torch.no_grad()
    def __call__(self, model, step, stopping=lambda: False):
        rows, scores = [], []
        for index in self.batches.validation:
            if stopping():
                return {}
            batch = self.batches.images([index])
            draws = Draws(SEED, 0, [index], batch.clean.device)
            restored = model(batch, draws, flux_sigmas(STEPS, SHIFT).tolist())
            row = torch.cat([self._image(tokens, batch.grid) for tokens in (batch.degraded, restored, batch.clean)])
            rows.append(row)
            scores.append({name: value.item() for name, value in quality(row[1:2], row[2:3]).items()})
        if self.main:
            write_whole(self._path(step), png_bytes(_sheet(rows)))
        return {f"validation/{name}": sum(own[name] for own in scores) / len(scores) for name in scores[0]}

    def _image(self, tokens, grid):
        return self.decode(unpack_latents(tokens, *grid)).float().clamp(0, 1).cpu()


def _sheet(rows):
    """The rows of images (n, 3, h, w) under each other, (3, H, W), filled up with black on the right."""
    strips = [torch.cat(list(row), 2) for row in rows]
    width = max(strip.shape[2] for strip in strips)
    return torch.cat([torch.nn.functional.pad(strip, (0, width - strip.shape[2])) for strip in strips], 1)
