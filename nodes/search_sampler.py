"""A test-time search as a ComfyUI sampler function: the Task of fluxir_core.searches made of a guider and VAEs."""

import logging
from dataclasses import dataclass
from functools import partial

import comfy.model_management
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.utils
import torch
from comfy.samplers import KSAMPLER, Sampler

from ..fluxir_core.execution.micro_batches import MicroBatches
from ..fluxir_core.execution.tiles import crop_to_tile
from ..fluxir_core.image.montage import in_words, search_montage
from ..fluxir_core.searches.search import SearchResult, estimate_cost, search
from ..fluxir_core.searches.task import Task
from ..fluxir_core.verify.ensemble import Ensemble
from ..fluxir_core.verify.fidelity import downsampled_psnr
from ..fluxir_core.verify.held_out import held_out_for
from .degraded_latent import check_vae
from .inputs import checked_latent
from .runtime import in_name_of, to_planes
from .verifiers import LoadedVerifier

MOST_AT_ONCE = 8


@dataclass
class SearchSampler:
    """One search as the artist set it up; `result` is filled when it has run.

    vae decodes candidates for the verifier, final_vae (or None) the finalists. degraded: (1 or B, 3, H, W) or None.
    keys: what each image's noise is keyed by, None for its place in the batch.
    """

    name: str
    algorithm: object
    vae: object
    verifier: LoadedVerifier
    final_vae: object = None
    degraded: torch.Tensor | None = None
    keys: list | None = None
    keep_best: bool = False
    result: SearchResult | None = None

    def sampler(self):
        """The KSAMPLER that runs this search."""
        return KSAMPLER(self._sample)

    def _sample(self, model, x, sigmas, extra_args, callback, disable):
        """The sampler function: x is the noised latent at sigmas[0]; returns the chosen latents at sigmas[-1]."""
        if len(sigmas) < 2:
            return x
        task = ComfyTask(self, model, x, extra_args, sigmas)
        stopped_by = comfy.model_management.InterruptProcessingException if self.keep_best else ()
        try:
            seed = extra_args.get("seed") or 0
            result = search(task.functions(), model.noise, sigmas, self.algorithm, seed, self.keys, stopped_by)
        except ValueError as error:
            raise in_name_of(self.name, error) from None
        finally:
            self.verifier.ensemble.forget()
        result.report["at_once"] = task.calls.size
        result.report["remarks"] = [*result.report["remarks"], *self.verifier.ensemble.remarks()]
        result.finalists = torch.stack([task.to_vae(finalist) for finalist in result.finalists])
        self.result, found = result, result.latents.to(x)
        if callback is not None:
            callback({"x": found, "i": len(sigmas) - 2, "sigma": sigmas[-2], "sigma_hat": sigmas[-2], "denoised": found})
        return found


class ComfyTask:
    """The functions of a Task, bound to one sampling run. Rows are candidate by candidate, as core tiles a batch."""

    def __init__(self, settings, model, x, extra_args, sigmas):
        self.settings, self.model, self.extra_args, self.sigmas = settings, model, extra_args, sigmas
        self.base = model.inner_model.inner_model
        if not isinstance(self.base.model_sampling, comfy.model_sampling.CONST):
            raise ValueError(
                f"{settings.name}: the model is of another kind than flow matching; use a flow-matching model such as FLUX, SD3.5 "
                "or Qwen-Image."
            )
        checked_latent(settings.name, "latent_image", x, self.base.latent_format)
        if x.ndim == 5 and x.shape[2] > 1:
            raise ValueError(
                f"{settings.name}: latent_image has {x.shape[2]} frames; video cannot be searched, use one image each."
            )
        if settings.degraded is not None and len(settings.degraded) not in (1, len(x)):
            raise ValueError(
                f"{settings.name}: {len(settings.degraded)} degraded images for a sampled batch of {len(x)}; give one, or one each."
            )
        for vae in filter(None, (settings.vae, settings.final_vae)):
            check_vae(settings.name, vae, model.inner_model.model_patcher)
        self.batch, self.shape = len(x), x.shape[1:]
        self.calls = MicroBatches(self.batch, self._at_once(x))
        self.displaced = False
        self.nfe, self.planned = 0, estimate_cost(settings.algorithm, sigmas, settings.final_vae is not None)["nfe"]
        self.bar = comfy.utils.ProgressBar(self.planned)

    def functions(self):
        settings, held_out = self.settings, held_out_for(self.settings.verifier.ensemble)
        return Task(
            self.velocity,
            partial(self.decode, settings.vae),
            self.score,
            settings.verifier.ensemble.combine,
            settings.verifier.ensemble.member_values,
            start=self.start,
            watch=self.watch,
            finish=settings.final_vae and partial(self.decode, settings.final_vae),
            fidelity=None if settings.degraded is None else self.fidelity,
            held_out=held_out and LoadedVerifier(Ensemble([held_out])).measure,
            score_tile=self.score_tile,
        )

    def _at_once(self, x):
        """Candidates that fit one model call beside what is loaded, cond and uncond counted."""
        device = x.device
        if comfy.model_management.is_device_cpu(device):
            return MOST_AT_ONCE
        patcher = self.model.inner_model.model_patcher
        needed = patcher.memory_required([2 * len(x), *x.shape[1:]])
        return max(1, min(MOST_AT_ONCE, int(0.8 * patcher.get_free_memory(device) / max(needed, 1))))

    def start(self, noise):
        """The model's own noising of its latent image, at the first sigma."""
        latent = _tile(self.model.latent_image, noise)
        everything = Sampler().max_denoise(self.model.inner_model, self.sigmas)
        return self.base.model_sampling.noise_scaling(self.sigmas[0], noise, latent, everything)

    def velocity(self, x, t):
        if self.displaced:
            self._bring_back()
        v = self.calls(self._velocity, x, t)
        self.nfe += len(x) // self.batch
        self.bar.update_absolute(self.nfe)
        return v

    def _bring_back(self):
        """Loads what samples again, as core did before the first step: decoders, verifiers and students may have displaced it."""
        guider, rows = self.model.inner_model, self.calls.size * self.batch
        comfy.sampler_helpers.prepare_sampling(guider.model_patcher, [rows, *self.shape], guider.conds, guider.model_options)
        self.displaced = False

    def _velocity(self, x, t):
        """(x - denoised) / t, with what the inpainting wrapper holds tiled to x's rows."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        held = self.model.latent_image, self.model.noise
        mask = self.extra_args.get("denoise_mask")
        arguments = {**self.extra_args, "denoise_mask": None if mask is None else _tile(mask, x)}
        self.model.latent_image, self.model.noise = (_tile(tensor, x) for tensor in held)
        try:
            denoised = self.model(x, t, **arguments)
        finally:
            self.model.latent_image, self.model.noise = held
        if not torch.isfinite(denoised).all():
            raise ValueError("the model returned NaN or infinity; use a data type it is stable in, or another latent.")
        return (x - denoised) / t.reshape(-1, *[1] * (x.ndim - 1))

    def to_vae(self, latents):
        """Latents of the model's space as a VAE takes them."""
        return self.base.process_latent_out(latents.float())

    def decode(self, vae, latents):
        """(rows, 3, H, W) in [0, 1], on the CPU."""
        self.displaced = True
        images = vae.decode(self.to_vae(latents))
        images = to_planes(images.reshape(-1, *images.shape[-3:])).cpu()
        if len(images) != len(latents):
            raise ValueError(
                f"{len(latents)} latents decode to {len(images)} frames; video cannot be searched, use one image each."
            )
        return images

    def score(self, images):
        return self.settings.verifier.measure(images, self.settings.degraded)

    def fidelity(self, images):
        """Closeness to the degraded image in dB; alike for all candidates of an image where the verifier has judged that itself."""
        degraded = self.settings.degraded
        near = downsampled_psnr(images, degraded.repeat(len(images) // len(degraded), 1, 1, 1)).cpu()
        judged = self.settings.verifier.ensemble.judges_fidelity(self.batch)
        return near.masked_fill(judged.repeat(len(images) // self.batch), 0)

    def score_tile(self, crops, tile, full):
        """As `score`, of crops; the degraded image, of whatever size, is cropped to the same place."""
        degraded = self.settings.degraded
        return self.settings.verifier.measure(crops, None if degraded is None else crop_to_tile(degraded, tile, full))

    def watch(self, decided):
        """The first image's candidates on the node, the best of them large."""
        values, chosen = decided.values[:, 0].tolist(), decided.chosen[:, 0].tolist()
        words = in_words(decided.images[:, 0], max(chosen, key=lambda i: values[i]), self.settings.degraded)
        text = f"best so far: {words}\nstep {decided.step} of {len(self.sigmas) - 1}; below, where the candidates differ most"
        sheet = search_montage(decided.images[:, 0], values, chosen, text)
        self.bar.update_absolute(self.nfe, self.planned, ("JPEG", sheet, 512))
        logging.debug("%s: step %d, values %s", self.settings.name, decided.step, values)


def _tile(tensor, rows):
    """`tensor` (B or 1, ...) repeated to as many as `rows`."""
    return tensor.repeat(len(rows) // len(tensor), *[1] * (tensor.ndim - 1))
