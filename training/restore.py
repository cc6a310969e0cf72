"""`fluxir restore`: restores a picture on diffusers, without ComfyUI."""

import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from ..fluxir_core.tokens import image_ids, pack_latents, unpack_latents
from ..fluxir_core.flow import euler, flux_sigmas
from .host import DiffusersHost
from .model_folder import load_models

PATCH = 16
"""Pixels a side of one token: the VAE's 8 times FLUX's patch of 2."""


class Restorer:
    """A FLUX transformer with its FluxIR adapter and VAE, on `device`, taking and giving pictures.

    `folder` is as for `training.model_folder.load_models`. The models compute in `dtype`, the sampler in float32.
    """

    def __init__(self, folder, device="cpu", dtype=torch.float32):
        models = load_models(folder, device, dtype)
        self.vae, self.device, self.dtype = models.vae, device, dtype
        self.adapter = models.adapter
        self.host = DiffusersHost(models.transformer, models.adapter)

    @torch.no_grad()
    def restore(self, pictures, seeds, steps=20, shift=1.15, strength=1.0, callback=None):
        """Restores `pictures` (B, 3, H, W) in [0, 1]; any H and W, padded to 16 by repeating the edge. Returns the same shape.

        `seeds` holds one seed a picture; picture i starts from the noise ComfyUI draws for seeds[i]. `steps` Euler steps on
        FLUX's sigmas with `shift`; `strength` 0 leaves the adapter out.
        """
        height, width = pictures.shape[-2:]
        padded = F.pad(pictures, (0, -width % PATCH, 0, -height % PATCH), mode="replicate")
        degraded = self.vae.encode(padded.to(self.device, self.dtype))
        noise = torch.cat([_noise(degraded[:1].shape, seed) for seed in seeds]).to(self.device)
        grid = degraded.shape[-2:]

        batch = len(pictures)
        self.host.strength = strength
        condition = self.host.prepare(
            pack_latents(degraded), self.adapter.null_text.expand(batch, -1, -1), self.adapter.null_pooled.expand(batch, -1),
            image_ids(*grid).to(self.device),
        )  # fmt: skip
        guidance = torch.full((batch,), self.adapter.config.guidance, device=self.device)
        tokens = euler(
            lambda x, sigma: self.host.velocity(x.to(self.dtype), sigma, condition, guidance).float(),
            pack_latents(noise), flux_sigmas(steps, shift).to(self.device), callback,
        )  # fmt: skip
        restored = self.vae.decode(unpack_latents(tokens, *grid).to(self.dtype))
        return restored[..., :height, :width].float().clamp(0, 1).cpu()


def _noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def add_arguments(parser):
    parser.add_argument("input", type=Path, metavar="IN", help="the degraded picture")
    parser.add_argument("output", type=Path, metavar="OUT", help="where the restored picture is written")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the output over the input's (default 1)")
    parser.add_argument("--model", default="miniature", help="'miniature' or a model folder (see the README)")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report: seconds, NFE, seed, sizes")


def run(arguments):
    from ..fluxir_core.image import load_picture, save_picture

    if arguments.steps < 1:
        raise SystemExit(f"fluxir restore: --steps is {arguments.steps}; use at least 1.")
    if not 0.25 <= arguments.scale <= 8:
        raise SystemExit(f"fluxir restore: --scale is {arguments.scale}; use a value from 0.25 to 8.")
    picture = load_picture(arguments.input)[None]
    if arguments.scale != 1:
        size = [max(PATCH, round(extent * arguments.scale)) for extent in picture.shape[-2:]]
        picture = F.interpolate(picture, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    on_gpu = torch.cuda.is_available()
    restorer = Restorer(arguments.model, *(("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)))
    started = time.perf_counter()
    with tqdm(total=arguments.steps, desc="restoring", disable=None) as bar:
        restored = restorer.restore(picture, [arguments.seed], arguments.steps, callback=lambda *_: bar.update())[0]
    seconds = time.perf_counter() - started
    save_picture(restored, arguments.output)
    if arguments.json:
        height, width = restored.shape[-2:]
        report = {
            "input": str(arguments.input), "output": str(arguments.output), "width": width, "height": height,
            "steps": arguments.steps, "nfe": arguments.steps, "seed": arguments.seed, "seconds": round(seconds, 3),
        }  # fmt: skip
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
