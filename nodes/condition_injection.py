"""Running UMMF's condition tokens inside ComfyUI's native FLUX, through public hooks only.

A CONDITIONING carries the condition pictures as core's `reference_latents`, so that models which read those by themselves
(FLUX.1 Kontext) do. On any other FLUX, `ConditionInjection` takes them out of the call and runs them beside the blocks.
"""

import logging
from functools import partial
from typing import NamedTuple

import comfy.conds
import comfy.hooks
import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ..fluxir_core.adapter import KONTEXT, ConditionBranch, ConditionMemory, condition_positions, crop_to_tile
from .native_flux import attention, flux_dimensions

KEY = "fluxir_ummf"
STRENGTH = "fluxir_condition_strength"
TILE = "fluxir_tile"
MAX_REMEMBERED = 4
"""Conditionings whose keys and values are kept: cond and uncond, and a scheduled prompt or two."""


class TileCond(comfy.conds.CONDConstant):
    """Tells the model call which (height, width, top, left) of the latent it sees, or None for all of it."""

    def process_cond(self, batch_size, area=None, **kwargs):
        return self._copy_with(None if area is None else tuple(area))


class _Remembered(NamedTuple):
    key: torch.Tensor
    ids: torch.Tensor
    memory: list


class ConditionInjection:
    """The hooks that make a native FLUX MODEL read condition pictures in a given ConditionMode.

    lora: the LoRA of the condition tokens, its weights managed by ComfyUI, or None. Without hooks of its own on the model
    (a strength on the conditioning alone) `full` stays None: a tile's condition must then have the latent's resolution.
    """

    def __init__(self, mode, lora=None, lora_strength=1.0):
        self.mode, self.lora, self.lora_strength = mode, lora, lora_strength
        self.full = None
        self._remembered: list[_Remembered] = []

    def prepare_sampling(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: the whole latent's size, of which a call may see a tile. Core counts the condition's memory."""
        self.full = tuple(noise_shape[-2:])
        return executor(model, noise_shape, *args, **kwargs)

    def cleanup(self, _model_patcher):
        """ON_CLEANUP, also after an interrupt or an error: nothing of one run outlives it."""
        self._remembered.clear()

    def diffusion_model(self, executor, x, timestep, context, y=None, guidance=None, ref_latents=None, control=None,
                        transformer_options={}, **kwargs):
        """DIFFUSION_MODEL: take the references out of the call and let every attention see them as condition tokens."""
        tile, strength = kwargs.pop(TILE, None), transformer_options.get(STRENGTH, 1.0)
        if ref_latents:
            ref_latents = [self._tile_of(latents, tile) for latents in ref_latents]
        if ref_latents and not (self.mode == KONTEXT and strength == 1):
            flux = executor.class_obj
            beside = self._beside(flux, x, timestep, y, guidance, ref_latents, strength, transformer_options)
            following = transformer_options.get("optimized_attention_override")
            override = partial(_attend, beside, len(flux.double_blocks), following)
            transformer_options = {**transformer_options, "optimized_attention_override": override}
            ref_latents = None
        return executor(x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs)

    def _tile_of(self, latents, tile):
        if tile is None:
            return latents
        full = self.full or tuple(latents.shape[2:])
        if any(start + size > whole for size, start, whole in zip(tile[:2], tile[2:], full)):
            raise ValueError(
                f"UMMF Conditioning: the condition's latent is {full[1]}x{full[0]}, but a tile of the sampled latent "
                f"reaches {tile[3] + tile[1]}x{tile[2] + tile[0]}; encode the degraded picture at the sampled size."
            )
        return crop_to_tile(latents, tile, full)

    def _beside(self, flux, x, timestep, y, guidance, references, strength, transformer_options):
        """The condition tokens of this call: a stream, or remembered keys and values."""
        _, output_ids = flux.process_img(x[:1], transformer_options=transformer_options)
        columns = -(-x.shape[3] // flux.patch_size)
        grid = output_ids[0].unflatten(0, (-1, columns))
        tokens, ids = [], []
        for index, latents in enumerate(references):
            tokens.append(flux.process_img(latents.to(x))[0])
            height, width = (-(-extent // flux.patch_size) for extent in latents.shape[2:])
            ids.append(condition_positions(grid, height, width, self.mode, index))
        tokens, ids = torch.cat(tokens, 1), torch.cat(ids)
        pooled = x.new_zeros(len(x), flux.params.vec_in_dim) if y is None else y[:, : flux.params.vec_in_dim]
        branch = ConditionBranch(flux.get_submodule, flux_dimensions(flux), self.mode, self.lora, self.lora_strength)
        if self.mode.constant:
            remembered = self._remember(branch, tokens, ids, pooled, strength)
            if remembered is not None:
                return remembered
        return branch.start(tokens, ids, branch.vector(timestep, guidance, pooled), strength)

    def _remember(self, branch, tokens, ids, pooled, strength):
        """The condition's keys and values, computed once for each distinct picture and prompt of a run.

        Compared by content: candidates repeat the pictures, cond and uncond share them. None where memory is short.
        """
        rows, inverse = torch.unique(torch.cat([tokens.flatten(1), pooled], 1), dim=0, return_inverse=True)
        for entry in self._remembered:
            if torch.equal(entry.ids, ids) and torch.equal(entry.key, rows):
                return ConditionMemory(entry.memory, inverse, strength)
        needed = 2 * branch.dims.blocks * len(rows) * tokens.shape[1] * branch.dims.hidden_size * tokens.element_size()
        if needed > comfy.model_management.get_free_memory(tokens.device) / 2:
            logging.info("UMMF: %.1f GB of keys and values do not fit; they are computed at every step", needed / 2**30)
            return None
        first = torch.stack([(inverse == row).nonzero()[0, 0] for row in range(len(rows))])
        vector = branch.vector(None, None, pooled[first])
        memory = branch.remember(tokens[first], ids, vector, lambda q, k, v, _bias: attention(q, k, v))
        del self._remembered[: -MAX_REMEMBERED + 1]
        self._remembered.append(_Remembered(rows, ids, memory))
        return ConditionMemory(memory, inverse, strength)


def _attend(beside, double_blocks, following, func, query, key, value, heads, *args, mask=None, transformer_options=None,
            **kwargs):
    """The `optimized_attention_override` of a call: joins the condition to the attention of FLUX's own blocks."""
    index = transformer_options["block_index"]
    if transformer_options["block_type"] == "single":
        index += double_blocks

    def joined(q, k, v, bias):
        both = {"mask": _joined_mask(mask, q, k, bias), "transformer_options": transformer_options, **kwargs}
        if following is not None:
            return following(func, q, k, v, heads, *args, **both)
        return func(q, k, v, heads, *args, **both)

    return beside.attend(index, query, key, value, joined)


def _joined_mask(mask, query, key, bias):
    """The base's own attention mask, if any, extended to the condition's tokens, together with `bias`."""
    if mask is None or query.shape[2] < mask.shape[-2]:  # fewer queries: the condition attending to itself
        return bias
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
    mask = mask[(None,) * (4 - mask.ndim)] if mask.ndim < 3 else mask.view(len(mask), -1, *mask.shape[-2:])
    extra = (0, key.shape[2] - mask.shape[-1], 0, query.shape[2] - mask.shape[-2])
    mask = torch.nn.functional.pad(mask, extra)
    return mask if bias is None else mask + bias


def strength_hook(strength):
    """A HookGroup that gives the reference latents of a conditioning `strength`, on any native FLUX."""
    injection = ConditionInjection(KONTEXT)

    def diffusion_model(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[7]
        if KEY in options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {}):
            return executor(*args, **kwargs)  # Apply UMMF LoRA reads the strength itself
        return injection.diffusion_model(executor, *args, **kwargs)

    added = {STRENGTH: strength, "wrappers": {WrappersMP.DIFFUSION_MODEL: {STRENGTH: [diffusion_model]}}}
    group = comfy.hooks.HookGroup()
    group.add(comfy.hooks.TransformerOptionsHook(added, comfy.hooks.EnumHookScope.HookedOnly))
    return group
