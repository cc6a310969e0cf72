"""Running a FluxIR adapter inside ComfyUI's native FLUX, through public hooks only."""

from functools import partial
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ..fluxir_core.flux.layers import within_half
from .beside_flux import HooksBesideFlux
from .degraded_latent import as_rows, in_pixels
from .tile_context import TILES

KEY, NODE = "fluxir", "Apply FluxIR Adapter"


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


class FluxIRHooks(HooksBesideFlux):
    """The hooks that make a native FLUX MODEL restore: one instance per Apply FluxIR Adapter.

    lq: the degraded latent in network space (`process_latent_in` applied), (1 or B, C, H, W).
    patcher, strength, start_percent, end_percent: as HooksBesideFlux; the network is a FluxIRAdapter.
    """

    key, node = KEY, NODE

    def __init__(self, lq, patcher, strength, start_percent, end_percent):
        super().__init__(patcher, strength, start_percent, end_percent)
        self.lq = lq

    def reserve(self, model, noise_shape):
        """While the base runs, the adapter's output and prepared embeddings stay: about 2 * tokens * hidden values, near 1/16 of
        what ComfyUI reserves for FLUX.1 in bfloat16."""
        *batch, height, width = noise_shape
        if TILES not in model.wrappers.get(WrappersMP.PREPARE_SAMPLING, {}):
            _check_memory(model, noise_shape)
        return [*batch, height + -(-height // 16), width]

    def steer(self, network, flux, call, kwargs):
        """Runs the adapter once on this call's batch, then lets every block add its residuals."""
        image, image_ids = flux.process_img(call.x[:, : self.lq.shape[1]], transformer_options=call.transformer_options)

        def prepare(pooled, full, tiles):
            lq_tokens, _ = flux.process_img(self._lq_like(call.x, full, tiles))
            return network.prepare(lq_tokens, call.context, pooled, image_ids)

        condition = self.prepared(flux, call, prepare)
        residuals = network(image, call.timestep, call.guidance if flux.params.guidance_embed else None, condition)
        return call._replace(transformer_options=self._with_residuals(call.transformer_options, network, flux, residuals)), kwargs

    def _lq_like(self, x, full, tiles):
        """The degraded latents as x's rows: x holds one chunk of B images for each conditioning in the call, and each chunk
        is of the part of the latent that its conditioning is for."""
        images = len(x) // len(tiles)
        rows = as_rows(self.lq, x.new_empty(1).expand(images, 1, *full), images, NODE)
        return torch.cat([tile.of(rows) for tile in tiles])

    def _with_residuals(self, transformer_options, network, flux, residuals):
        """A copy of `transformer_options` whose block replacements add the residuals around whatever is there."""
        replace = dict(transformer_options.get("patches_replace", {}))
        blocks = dict(replace.get("dit", {}))
        doubles = [("double_block", i) for i in range(len(flux.double_blocks))]
        singles = [("single_block", i) for i in range(len(flux.single_blocks))]
        before = network.config.inject == "before"
        for index, name in enumerate(doubles + singles):
            add = partial(self._add_double if name[0] == "double_block" else self._add_single, residuals, index)
            blocks[name] = partial(_run_block, before, add, blocks.get(name))
        return {**transformer_options, "patches_replace": {**replace, "dit": blocks}}

    def _add_double(self, residuals, index, args, streams):
        image, text = residuals.image(index, streams["img"]), residuals.text(index, streams["txt"])
        return {"img": self._add(streams["img"], (0, image)), "txt": self._add(streams["txt"], (0, text))}

    def _add_single(self, residuals, index, args, streams):
        tokens = streams["img"]
        first_image_token = args["transformer_options"]["img_slice"][0]
        image, text = residuals.image(index, tokens), residuals.text(index, tokens)
        return {"img": self._add(tokens, (0, text), (first_image_token, image))}

    def _add(self, tokens, *residuals):
        # Out of place: core's blocks and other packs may still hold `tokens`. Reference tokens get nothing.
        out = tokens.clone()
        for start, residual in residuals:
            out[:, start : start + residual.shape[1]].add_(residual, alpha=self.strength)
        return within_half(out)


def _run_block(before, add, replacement, args, extra):
    if before:
        args = {**args, **add(args, args)}
    out = replacement(args, extra) if replacement else extra["original_block"](args)
    return out if before else {**out, **add(args, out)}
