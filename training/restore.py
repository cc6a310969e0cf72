"""`fluxir restore`: restores a picture on diffusers, without ComfyUI."""

import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from ..fluxir_core.flow import PRESETS, Task, euler, flux_sigmas, plan, search
from ..fluxir_core.flow.batching import MicroBatches
from ..fluxir_core.tokens import image_ids, pack_latents, unpack_latents
from ..fluxir_core.verify import DefaultEnsemble, downsampled_psnr
from .host import DiffusersHost
from .model_folder import load_models
from .ummf_host import UMMFHost

PER_PICTURE = ("score", "baseline_score", "winner")
PATCH = 16
"""Pixels a side of one token: the VAE's 8 times FLUX's patch of 2."""


class Restorer:
    """A FLUX transformer with its adapter and VAE, on `device`, taking and giving pictures.

    `folder` is as for `training.model_folder.load_models`. `adapter` says what shows the model the degraded picture:
    "fluxir", or "ummf" for the folder's LoRA. The models compute in `dtype`, the sampler in float32. Raises ValueError when
    the folder has no LoRA.
    """

    def __init__(self, folder, device="cpu", dtype=torch.float32, adapter="fluxir"):
        models = load_models(folder, device, dtype)
        self.vae, self.device, self.dtype = models.vae, device, dtype
        self.adapter = models.adapter
        if adapter == "fluxir":
            self.host = DiffusersHost(models.transformer, models.adapter)
        elif models.lora is None:
            raise ValueError(f"--adapter: {folder} has no loras folder; put a UMMF LoRA there, or use fluxir.")
        else:
            self.host = UMMFHost(models.transformer, models.lora, models.mode)

    @torch.no_grad()
    def restore(self, pictures, seeds, steps=20, shift=1.15, strength=1.0, callback=None):
        """Restores `pictures` (B, 3, H, W) in [0, 1]; any H and W, padded to 16 by repeating the edge. Returns the same shape.

        `seeds` holds one seed a picture; picture i starts from the noise ComfyUI draws for seeds[i]. `steps` Euler steps on
        FLUX's sigmas with `shift`; `strength` 0 leaves the adapter out.
        """
        conditioned = _Conditioned(self, pictures, strength)
        sigmas = flux_sigmas(steps, shift).to(self.device)
        return conditioned.decode(euler(conditioned.velocity, conditioned.noise(seeds), sigmas, callback)).cpu()

    @torch.no_grad()
    def search(self, pictures, seeds, schedule, ensemble, steps=20, shift=1.15, at_once=8, callback=None):
        """As `restore`, by the search `schedule`, choosing by `ensemble` (see fluxir_core.verify.Ensemble).

        All noise beyond the first is keyed by each picture's own seed. `at_once` candidates share a model call; fewer where
        memory runs out. `callback(count)` runs after every call with the candidates it evaluated. Returns (restored
        pictures, the report of fluxir_core.flow.search).
        """
        conditioned = _Conditioned(self, pictures)
        batch = len(pictures)
        calls, verifications = MicroBatches(batch, at_once), MicroBatches(batch, at_once)

        def velocity(x, t):
            v = calls(conditioned.velocity, x, t)
            if callback:
                callback(len(x) // batch)
            return v

        def score(candidates):
            return verifications(lambda group: ensemble.measure(group, _tile(pictures, group)), candidates)

        task = Task(
            velocity,
            lambda latents: verifications(lambda group: conditioned.decode(group).cpu(), latents),
            score,
            ensemble.combine,
            fidelity=lambda candidates: downsampled_psnr(candidates, _tile(pictures, candidates)),
        )
        noise, sigmas = conditioned.noise(seeds), flux_sigmas(steps, shift)
        found = search(task, noise, sigmas, schedule, keys=seeds)
        return conditioned.decode(found.latents).cpu(), found.report


class _Conditioned:
    """The model under the condition of some degraded pictures, for any whole number of candidates of each."""

    def __init__(self, restorer, pictures, strength=1.0):
        self.restorer = restorer
        self.size = pictures.shape[-2:]
        height, width = self.size
        padded = F.pad(pictures, (0, -width % PATCH, 0, -height % PATCH), mode="replicate")
        self.degraded = restorer.vae.encode(padded.to(restorer.device, restorer.dtype))
        self.grid = self.degraded.shape[-2:]
        self.conditions = {}
        restorer.host.strength = strength

    def noise(self, seeds):
        """The initial tokens (B, N, 64) that ComfyUI would draw for `seeds`."""
        drawn = torch.cat([_noise(self.degraded[:1].shape, seed) for seed in seeds])
        return pack_latents(drawn).to(self.restorer.device)

    def velocity(self, x, t):
        """v at x (rows, N, 64), rows candidate by candidate, and t (rows,)."""
        restorer, rows = self.restorer, len(x)
        if rows not in self.conditions:
            adapter = restorer.adapter
            self.conditions[rows] = restorer.host.prepare(
                pack_latents(_tile(self.degraded, x)), adapter.null_text.expand(rows, -1, -1),
                adapter.null_pooled.expand(rows, -1), image_ids(*self.grid).to(restorer.device),
            )  # fmt: skip
        guidance = torch.full((rows,), restorer.adapter.config.guidance, device=x.device)
        return restorer.host.velocity(x.to(restorer.dtype), t, self.conditions[rows], guidance).float()

    def decode(self, tokens):
        """Tokens (rows, N, 64) as pictures (rows, 3, H, W) in [0, 1]."""
        pictures = self.restorer.vae.decode(unpack_latents(tokens, *self.grid).to(self.restorer.dtype))
        height, width = self.size
        return pictures[..., :height, :width].float().clamp(0, 1)


def _tile(pictures, rows):
    """`pictures` (B, ...) repeated to as many as `rows`."""
    return pictures.repeat(len(rows) // len(pictures), *[1] * (pictures.ndim - 1))


def _noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def add_arguments(parser):
    parser.add_argument("input", type=Path, metavar="IN", help="the degraded picture")
    parser.add_argument("output", type=Path, metavar="OUT", help="where the restored picture is written")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the output over the input's (default 1)")
    parser.add_argument("--model", default="miniature", help="'miniature' or a model folder (see the README)")
    parser.add_argument("--adapter", choices=("fluxir", "ummf"), default="fluxir", help="what shows the model the picture")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    parser.add_argument("--preset", choices=PRESETS, help="search for a better picture at test time (see `fluxir plan`)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write a report: seconds, NFE, seed, sizes, the search's log"
    )


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
    machine = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    restorer = Restorer(arguments.model, *machine, arguments.adapter)
    settings = {"steps": arguments.steps, "shift": 1.15}
    started = time.perf_counter()
    if arguments.preset:
        schedule = PRESETS[arguments.preset]
        total = plan(schedule, flux_sigmas(**settings))["nfe"]
        with tqdm(total=total, desc=f"searching ({arguments.preset})", disable=None) as bar:
            found, searched = restorer.search(
                picture, [arguments.seed], schedule, DefaultEnsemble(), **settings, callback=bar.update
            )
        searched |= {name: value[0] if value else None for name, value in searched.items() if name in PER_PICTURE}
    else:
        with tqdm(total=arguments.steps, desc="restoring", disable=None) as bar:
            found = restorer.restore(picture, [arguments.seed], **settings, callback=lambda *_: bar.update())
        searched = {"nfe": arguments.steps, "nfe_planned": arguments.steps}
    seconds = time.perf_counter() - started
    save_picture(found[0], arguments.output)
    if arguments.json:
        height, width = found.shape[-2:]
        report = {
            **searched,
            "input": str(arguments.input), "output": str(arguments.output), "width": width, "height": height,
            "steps": arguments.steps, "seed": arguments.seed, "seconds": round(seconds, 3),
            "adapter": arguments.adapter, "preset": arguments.preset,
        }  # fmt: skip
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
