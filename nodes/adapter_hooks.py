"""Running a FluxIR adapter inside ComfyUI's native FLUX, through public hooks only."""

from functools import partial
from typing import Any, NamedTuple

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from .degraded_latent import as_rows, in_pixels
from .tile_context import TILES, tiles_of_call

# Distinct conditionings of one sampling run (cond and uncond, split or joint) are few; a graph that schedules many
# prompts should not keep all of them on the GPU.
MAX_PREPARED = 4


NODE = "Apply FluxIR Adapter"


EVERYWHERE = (float("inf"), float("-inf"))


class _Prepared(NamedTuple):
    key: tuple
    context: torch.Tensor
    pooled: torch.Tensor
    condition: object


def _check_memory(model, noise_shape):
    """Raises ValueError where an image in one piece is predicted to need more memory than there is."""
    device = comfy.model_management.get_torch_device()
    memory: Any = comfy.model_management.get_total_memory(device)
    needed, total = (size / 2**30 for size in (model.memory_required(noise_shape), memory))
    if needed > total:
        raise ValueError(
            f"{NODE}: an image of {in_pixels(torch.empty(noise_shape, device='meta'))} pixels in one piece takes about {needed:.0f} GB "
            f"of memory, and there are {total:.0f}; put Tile Model before the sampler."
        )


class FluxIRHooks:
    """The hooks that make a native FLUX MODEL restore: one instance per Apply FluxIR Adapter.

    adapter: FluxIRAdapter, its weights managed by ComfyUI.
    lq: the degraded latent in network space (`process_latent_in` applied), (1 or B, C, H, W).
    strength: factor on every residual.
    start_percent, end_percent: the part of sampling, 0 (noise) to 1 (image), in which the adapter acts.
    """

    def __init__(self, adapter, lq, strength, start_percent, end_percent):
        self.adapter = adapter
        self.lq = lq
        self.strength = strength
        self.percent = (start_percent, end_percent)
        self._sigma_range = EVERYWHERE
        self._prepared: list[_Prepared] = []

    def pre_run(self, model_patcher):
        """ON_PRE_RUN: sigmas of the percents, known only now because a later node may still change the schedule."""
        percent_to_sigma = model_patcher.get_model_object("model_sampling").percent_to_sigma
        start, end = self.percent
        # The ends are open: a schedule may begin a rounding error above the sigma of 0 %.
        self._sigma_range = (
            float(percent_to_sigma(start)) if start > 0 else EVERYWHERE[0],
            float(percent_to_sigma(end)) if end < 1 else EVERYWHERE[1],
        )

    def cleanup(self, _model_patcher):
        """ON_CLEANUP, also after an interrupt or an error: nothing of one run outlives it."""
        self._prepared.clear()

    def prepare_sampling(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: make room for the adapter's activations.

        While the base runs, the adapter's output and prepared embeddings stay: about 2 * tokens * hidden values, near
        1/16 of what ComfyUI reserves for FLUX.1 in bfloat16. The noise shape only feeds that estimate.
        """
        batch, channels, height, width = noise_shape
        if TILES not in model.wrappers.get(WrappersMP.PREPARE_SAMPLING, {}):
            _check_memory(model, noise_shape)
        return executor(model, [batch, channels, height + -(-height // 16), width], *args, **kwargs)

    def diffusion_model(
        self,
        executor,
        x,
        timestep,
        context,
        y=None,
        guidance=None,
        ref_latents=None,
        control=None,
        transformer_options={},  # noqa: B006 (as in ComfyUI; it is not changed)
        **kwargs,
    ):
        """DIFFUSION_MODEL: run the adapter once on this call's batch, then let every block add its residuals."""
        if self._acts_at(timestep):
            flux = executor.class_obj
            image, image_ids = flux.process_img(x[:, : self.lq.shape[1]], transformer_options=transformer_options)
            if y is None:
                y = x.new_zeros(x.shape[0], flux.params.vec_in_dim)
            condition = self._condition(flux, x, image_ids, context, y, transformer_options)
            residuals = self.adapter(image, timestep, guidance if flux.params.guidance_embed else None, condition)
            transformer_options = self._with_residuals(transformer_options, flux, residuals, image.shape[1])
        return executor(x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs)

    def _acts_at(self, timestep):
        if self._sigma_range == EVERYWHERE:  # spares the device a synchronization
            return True
        start, end = self._sigma_range
        return end <= float(timestep.max()) <= start

    def _condition(self, flux, x, image_ids, context, y, transformer_options):
        """What does not depend on x_t and t, computed once per run for each distinct conditioning and size.

        Compared by content: cond and uncond take turns in calls of equal shape, and other packs may edit either.
        """
        rope = tuple(sorted(transformer_options.get("rope_options", {}).items()))
        called = tiles_of_call(transformer_options, x, NODE)
        key = (x.shape, x.dtype, x.device, rope, called)
        for entry in self._prepared:
            if entry.key == key and torch.equal(entry.context, context) and torch.equal(entry.pooled, y):
                return entry.condition
        lq = self._lq_like(x, *called)
        lq_tokens, _ = flux.process_img(lq)
        condition = self.adapter.prepare(lq_tokens, context, y[:, : flux.params.vec_in_dim], image_ids)
        del self._prepared[: -MAX_PREPARED + 1]
        self._prepared.append(_Prepared(key, context.clone(), y.clone(), condition))
        return condition

    def _lq_like(self, x, full, tiles):
        """The degraded latents as x's rows: x holds one chunk of B images for each conditioning in the call, and each chunk
        is of the part of the latent that its conditioning is for."""
        images = len(x) // len(tiles)
        rows = as_rows(self.lq, x.new_empty(1).expand(images, 1, *full), images, NODE)
        return torch.cat([tile.of(rows) for tile in tiles])

    def _with_residuals(self, transformer_options, flux, residuals, image_tokens):
        """A copy of `transformer_options` whose block replacements add the residuals around whatever is there."""
        replace = dict(transformer_options.get("patches_replace", {}))
        blocks = dict(replace.get("dit", {}))
        doubles = [("double_block", i) for i in range(len(flux.double_blocks))]
        singles = [("single_block", i) for i in range(len(flux.single_blocks))]
        for index, name in enumerate(doubles + singles):
            add = partial(self._add_double if name[0] == "double_block" else self._add_single, residuals, index, image_tokens)
            blocks[name] = partial(self._run_block, add, blocks.get(name))
        return {**transformer_options, "patches_replace": {**replace, "dit": blocks}}

    def _run_block(self, add, replacement, args, extra):
        before = self.adapter.config.inject == "before"
        if before:
            args = {**args, **add(args, args)}
        out = replacement(args, extra) if replacement else extra["original_block"](args)
        return out if before else {**out, **add(args, out)}

    def _add_double(self, residuals, index, image_tokens, args, streams):
        image, text = residuals.image(index, streams["img"]), residuals.text(index, streams["txt"])
        return {"img": self._add(streams["img"], (0, image)), "txt": self._add(streams["txt"], (0, text))}

    def _add_single(self, residuals, index, image_tokens, args, streams):
        tokens = streams["img"]
        first_image_token = args["transformer_options"]["img_slice"][0]
        image, text = residuals.image(index, tokens), residuals.text(index, tokens)
        return {"img": self._add(tokens, (0, text), (first_image_token, image))}

    def _add(self, tokens, *residuals):
        # Out of place: core's blocks and other packs may still hold `tokens`. Reference tokens get nothing.
        out = tokens.clone()
        for start, residual in residuals:
            out[:, start : start + residual.shape[1]].add_(residual, alpha=self.strength)
        return out
