"""Restoring images on diffusers, without ComfyUI."""

from contextlib import contextmanager
from typing import Any

import torch

from ...fluxir_core.adapter.checkpoint import load_adapter
from ...fluxir_core.execution.micro_batches import MicroBatches
from ...fluxir_core.execution.tiled_vae import LATENT
from ...fluxir_core.execution.tiles import Tile, map_tiles
from ...fluxir_core.flow.fidelity_guidance import fidelity_guidance
from ...fluxir_core.flow.rectified_flow import broadcast, clean_estimate, euler, flux_sigmas, interpolate
from ...fluxir_core.flux.tokens import image_ids, pack_latents, unpack_latents
from ...fluxir_core.image.padding import crop_back, pad_to_tokens
from ...fluxir_core.lucidflux.schedule import lucidflux_sigmas
from ...fluxir_core.searches.search import search
from ...fluxir_core.searches.task import Task
from ...fluxir_core.verify.fidelity import downsampled_psnr
from ...fluxir_core.verify.held_out import held_out_for
from ..data.prompts import load_prompt_encoder
from .fluxir_host import FluxIRHost
from .lora_host import LoRAHost
from .lucidflux_host import LucidFluxHost, load_lucidflux_models, load_lucidflux_prompt
from .model_folder import load_models, model_folder, only_file
from .ummf_host import UMMFHost

TILES_AT_ONCE = 4
"""Tiles of one model call, until memory runs out."""


SHIFT = 1.15
"""FLUX's time shift mu. LucidFlux has its own, which depends on the size."""


class Restorer:
    """A FLUX transformer with its adapter and VAE, taking and giving images.

    The models compute in `dtype`, the sampler in float32.

    Args:
        folder: as for `training.diffusers_host.model_folder.load_models`, or for LucidFlux as for `load_lucidflux_models`.
        device: where the models are.
        dtype: that they compute in.
        adapter: what shows the model the degraded image: "fluxir", "ummf" for the folder's LoRA, or "lucidflux".
        prompt: what the images show; the empty one is the adapter's own.

    Raises:
        ValueError: the folder is no such one, or has no LoRA, or no text encoders for a prompt.
    """

    def __init__(self, folder, device="cpu", dtype=torch.float32, adapter="fluxir", prompt=""):
        self.folder, self.device, self.dtype = folder, device, dtype
        encoded = _encode(prompt, folder, adapter, device, dtype) if prompt else None  # first: both may not fit
        load = load_lucidflux_models if adapter == "lucidflux" else load_models
        models: Any = load(folder, device, dtype)
        self._lucidflux = models if adapter == "lucidflux" else None
        self.vae = models.vae
        if adapter == "lucidflux":
            own, self.guidance, self.schedules, few_steps = models.prompt[:2], models.guidance, {}, None
            self.host = LucidFluxHost(models.transformer, models.network)
        else:
            own = models.adapter.null_text, models.adapter.null_pooled
            self.guidance, self.schedules, few_steps = models.adapter.config.guidance, models.schedules, models.few_steps
            if adapter == "fluxir":
                self.host = FluxIRHost(models.transformer, models.adapter)
            elif models.lora is None:
                raise ValueError(f"--adapter: {folder} has no loras folder; put a UMMF LoRA there, or use fluxir.")
            else:
                self.host = UMMFHost(models.transformer, models.lora, models.mode)
        self.text, self.pooled = own if encoded is None else (part.to(device, dtype) for part in encoded)
        self.student = few_steps and LoRAHost(self.host, few_steps, strength=0.0)

    def sigmas(self, steps, shift, size):
        """Sigmas for images of `size` (height, width): FLUX's with `shift`, or where that is None those of the adapter."""
        if shift is None and self._lucidflux:
            return lucidflux_sigmas(steps, *size)
        return flux_sigmas(steps, SHIFT if shift is None else shift)

    def see(self, images, degraded, cleaned):
        """What the host's `prepare` sees of `images` (B, 3, H, W) and their latents `degraded`: (whole, by place), the latter
        [(tensor, its pixels a latent pixel)]. `cleaned` is a degradation remover's. Raises ValueError where it is needed."""
        if self._lucidflux is None:
            return (), [(degraded, 1)]
        if cleaned is None or cleaned.shape != images.shape:
            raise ValueError(
                "LucidFlux needs the degradation remover's image, of the size of the degraded one; give it by --cleaned."
            )
        features = self._lucidflux.features(cleaned.to(self.device))
        return (features,), [(image.to(self.device, self.dtype), LATENT) for image in (images, cleaned)]

    @torch.no_grad()
    def restore(
        self, images, seeds, steps=20, shift=None, strength=1.0, tile=None, callback=None, sigmas=None, fidelity=0.0, cleaned=None
    ):
        """Restores images by Euler's sampler.

        Args:
            images: (B, 3, H, W) in [0, 1]; any H and W, padded to 16 by repeating the edge.
            seeds: one for each image; image i starts from the noise ComfyUI draws for seeds[i].
            steps: of the sampler.
            shift: of the sigmas; None for the adapter's own, see `sigmas`.
            strength: the adapter's; 1 is what it was trained with, 0 leaves it out.
            tile: fluxir_core.execution.tiles.TiledRun, by which the model sees the images, or None for the whole.
            callback: `callback(step, x)` runs after every step; None for nothing.
            sigmas: S + 1 numbers that replace `steps` and `shift`; where the first is below 1, sampling starts from the noised
                degraded latent. None for those of `steps` and `shift`.
            fidelity: in [0, 1], draws the result toward the degraded image, see fluxir_core.flow.fidelity_guidance; 0 does not.
            cleaned: what a degradation remover makes of the images, (B, 3, H, W) in [0, 1]; LucidFlux alone needs it.

        Returns:
            (B, 3, H, W) in [0, 1], float32, on the CPU.

        Raises:
            ValueError: a model gives NaN or infinity, `steps` is below 1, `fidelity` is outside [0, 1], or LucidFlux lacks
                `cleaned`.
        """
        model = _ConditionedModel(self, images, strength, tile, fidelity, cleaned)
        sigmas = (self.sigmas(steps, shift, model.padded_size) if sigmas is None else torch.tensor(sigmas)).to(self.device)
        noise = model.noise(seeds)
        start = interpolate(pack_latents(model.degraded).float(), noise, sigmas[0].expand(len(noise)))
        return model.result(euler(model.velocity, start, sigmas, callback))

    def restore_few_steps(self, images, seeds, steps, callback=None, fidelity=0.0):
        """Restores images in few steps, on the folder's schedule for them, by its student where it has one.

        Args:
            images, seeds: as for `restore`.
            steps: a number that the folder has a schedule for.
            callback, fidelity: as for `restore`.

        Returns:
            As `restore`.

        Raises:
            ValueError: there is no schedule of so many steps, and as `restore`.
        """
        if steps not in self.schedules:
            known = f"it has those for {', '.join(map(str, self.schedules))}" if self.schedules else "run `fluxir schedule`"
            raise ValueError(f"--few-steps: the model folder has no schedule for {steps} steps; {known}.")
        with self.student_enabled():
            return self.restore(images, seeds, callback=callback, sigmas=self.schedules[steps], fidelity=fidelity)

    @torch.no_grad()
    def through_vae(self, images):
        """`images` (B, 3, H, W) in [0, 1] as the VAE gives them back: what of them a restoration can hold. On the CPU."""
        latents = self.vae.encode(pad_to_tokens(images).to(self.device, self.dtype))
        return crop_back(self.vae.decode(latents), images.shape[-2:]).float().clamp(0, 1).cpu()

    @contextmanager
    def student_enabled(self):
        """The student's LoRA acts inside this block, where the folder has one."""
        if self.student:
            self.student.strength = 1.0
        try:
            yield
        finally:
            if self.student:
                self.student.strength = 0.0

    @torch.no_grad()
    def search(
        self,
        images,
        seeds,
        algorithm,
        ensemble,
        steps=20,
        shift=None,
        at_once=8,
        tile=None,
        callback=None,
        fidelity=0.0,
        cleaned=None,
    ):
        """Restores images by a search.

        All noise beyond the first is keyed by each image's own seed.

        Args:
            images, seeds: as for `restore`.
            algorithm: of the search, see fluxir_core.searches.search.
            ensemble: fluxir_core.verify.Ensemble that chooses.
            steps, shift: as for `restore`.
            at_once: candidates that share a model call; fewer where memory runs out.
            tile: as for `restore`.
            callback: `callback(count)` runs after every call with the candidates it evaluated; None for nothing.
            fidelity, cleaned: as for `restore`.

        Returns:
            (restored images as `restore`, the report of fluxir_core.searches.search).

        Raises:
            ValueError: as `restore` and fluxir_core.searches.search.
        """
        model = _ConditionedModel(self, images, tile=tile, fidelity=fidelity, cleaned=cleaned)
        batch = len(images)
        calls, verifications = MicroBatches(batch, at_once), MicroBatches(batch, at_once)

        def velocity(x, t):
            v = calls(model.velocity, x, t)
            if callback:
                callback(len(x) // batch)
            return v

        def score(candidates):
            return verifications(lambda group: ensemble.measure(group, _tile(images, group)), candidates)

        held_out = held_out_for(ensemble)
        task = Task(
            velocity,
            lambda latents: verifications(lambda group: model.decode(group).cpu(), latents),
            score,
            ensemble.combine,
            ensemble.member_values,
            held_out=held_out and (lambda candidates: {held_out.name: verifications(held_out, candidates)}),
            fidelity=lambda candidates: downsampled_psnr(candidates, _tile(images, candidates)),
        )
        noise, sigmas = model.noise(seeds), self.sigmas(steps, shift, model.padded_size)
        found = search(task, noise, sigmas, algorithm, keys=seeds)
        return model.result(found.latents), found.report


def _encode(prompt, folder, adapter, device, dtype):
    """(text, pooled) of `prompt` by the model folder's text encoders, which are gone when it returns."""
    if adapter == "lucidflux":
        tokens = len(load_lucidflux_prompt(folder).text)
    else:
        tokens = load_adapter(only_file(model_folder(folder) / "fluxir_adapters")).config.text_tokens
    return load_prompt_encoder(folder, tokens, device, dtype)(prompt)


class _ConditionedModel:
    """The model under the condition of some degraded images, for any whole number of candidates of each."""

    def __init__(self, restorer, images, strength=1.0, tile=None, fidelity=0.0, cleaned=None):
        self.restorer, self.tile, self.fidelity = restorer, tile, fidelity
        self.size = images.shape[-2:]
        padded, cleaned = pad_to_tokens(images), None if cleaned is None else pad_to_tokens(cleaned)
        self.padded_size = padded.shape[-2:]
        self.degraded = self._finite(restorer.vae.encode(padded.to(restorer.device, restorer.dtype)), "VAE's encoder")
        self.whole, self.by_place = restorer.see(padded, self.degraded, cleaned)
        self.grid = self.degraded.shape[-2:]
        self.conditions = {}
        restorer.host.strength = strength

    def noise(self, seeds):
        """The initial tokens (B, N, 64) that ComfyUI would draw for `seeds`."""
        latents = torch.cat([_noise(self.degraded[:1].shape, seed) for seed in seeds])
        return pack_latents(latents).to(self.restorer.device)

    def velocity(self, x, t):
        """v at x (rows, N, 64), rows candidate by candidate, and t (rows,), as faithful to the input as was asked."""
        v = self._free_velocity(x, t)
        if self.fidelity == 0:
            return v
        clean = unpack_latents(clean_estimate(x, v, t), *self.grid)
        latents = fidelity_guidance(clean, _tile(self.degraded, x).to(clean), t, self.fidelity)
        return (x - pack_latents(latents)) / broadcast(t, x)

    def _free_velocity(self, x, t):
        if self.tile is not None and max(self.grid) > self.tile.tile:
            latents = unpack_latents(x, *self.grid)
            return pack_latents(map_tiles(lambda crops, tiles: self._tiles_velocity(crops, tiles, t), latents, self.tile))
        rows = len(x)
        if rows not in self.conditions:
            height, width = self.grid
            self.conditions[rows] = self._prepare(x, [Tile(height, width, 0, 0)])
        return self._call(x, t, self.conditions[rows])

    def _tiles_velocity(self, crops, tiles, t):
        """v of tiles that share a call, each (rows, 16, height, width) in a list; a tile is an image of its own size."""
        tokens = self._call(pack_latents(torch.cat(crops)), t.repeat(len(tiles)), self._prepare(crops[0], tiles))
        return unpack_latents(tokens, *crops[0].shape[-2:]).chunk(len(tiles))

    def _prepare(self, x, tiles):
        """The host's condition for the rows of x on each of `tiles`."""
        restorer, rows = self.restorer, len(x) * len(tiles)
        by_place = [torch.cat([tile.times(scale).of(_tile(seen, x)) for tile in tiles]) for seen, scale in self.by_place]
        by_place = [pack_latents(part) if scale == 1 else part for part, (_, scale) in zip(by_place, self.by_place)]
        whole = [_tile(seen, x).repeat(len(tiles), 1, 1) for seen in self.whole]
        prompt = (restorer.text.expand(rows, -1, -1), restorer.pooled.expand(rows, -1))
        return restorer.host.prepare(*by_place, *whole, *prompt, image_ids(*tiles[0][:2]).to(restorer.device))

    def _call(self, x, t, condition):
        guidance = torch.full((len(x),), self.restorer.guidance, device=x.device)
        return self.restorer.host.velocity(x.to(self.restorer.dtype), t, condition, guidance).float()

    def decode(self, tokens):
        """Tokens (rows, N, 64) as images (rows, 3, H, W) in [0, 1]."""
        images = self.restorer.vae.decode(unpack_latents(tokens, *self.grid).to(self.restorer.dtype))
        return crop_back(images, self.size).float().clamp(0, 1)

    def result(self, tokens):
        """As `decode`, on the CPU. Raises ValueError unless everything is finite: NaN would be written as black."""
        return self._finite(self.decode(self._finite(tokens, "base model or its adapter")), "VAE's decoder").cpu()

    def _finite(self, values, model):
        if not values.isfinite().all():
            folder, dtype = self.restorer.folder, str(self.restorer.dtype).removeprefix("torch.")
            raise ValueError(f"--model: {folder}'s {model} gives NaN or infinity in {dtype}; download its weights again.")
        return values


def _tile(images, rows):
    """`images` (B, ...) repeated to as many as `rows`."""
    return images.repeat(len(rows) // len(images), *[1] * (images.ndim - 1))


def _noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
