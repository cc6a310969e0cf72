"""Running UMMF's condition tokens inside ComfyUI's native FLUX, through public hooks only.

A CONDITIONING carries the condition images as core's `reference_latents`, so that models which read those by themselves
(FLUX.1 Kontext) do. On any other FLUX, `UMMFHooks` takes them out of the call and runs them beside the blocks.
"""

import logging
from functools import partial

import comfy.conds
import comfy.hooks
import torch
from comfy.ldm.flux.model import Flux
from comfy.patcher_extension import WrappersMP

from ..fluxir_core.execution.tiles import crop_to_tile
from ..fluxir_core.ummf.condition_stream import ConditionBranch, condition_positions, log_strength, reference_places
from ..fluxir_core.ummf.kv_cache import MAX_KEPT, CachedCondition, KVCache
from ..fluxir_core.ummf.mode import KONTEXT
from .native_flux import attention, flux_dimensions
from .tile_context import TILE, TILES

KEY = "fluxir_ummf"


STRENGTH = "fluxir_condition_strength"


class UMMFHooks:
    """The hooks that make a native FLUX MODEL read condition images in a given ConditionMode.

    lora: the LoRA of the condition tokens, its weights managed by ComfyUI, or None. Without hooks of its own on the model
    (a strength on the conditioning alone) `full` stays None: a tile's condition must then have the latent's resolution.
    """

    def __init__(self, mode, lora=None, lora_strength=1.0, say=logging.warning):
        self.say, self.called, self.shown = say, False, False
        self.mode, self.lora, self.lora_strength = mode, lora, lora_strength
        self.full, self._patcher = None, None  # known when sampling begins
        self._cache, self._layout = KVCache(), None

    def prepare_sampling(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: the whole latent's size, of which a call may see a tile. Core counts the condition's memory."""
        self.full, self._patcher = tuple(noise_shape[-2:]), model
        return executor(model, noise_shape, *args, **kwargs)

    def cleanup(self, _model_patcher):
        """ON_CLEANUP, also after an interrupt or an error: nothing of one run outlives it."""
        self._cache.clear()
        self._layout = self._patcher = None
        if self.called and not self.shown:
            self.say(
                "The model was shown no photo: give its prompt to UMMF Conditioning, and connect that to the sampler or guider."
            )
        self.called = self.shown = False

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
        """DIFFUSION_MODEL: take the references out of the call and let every attention see them as condition tokens."""
        tile, strength = kwargs.pop(TILE, None), transformer_options.get(STRENGTH, 1.0)
        self.called, self.shown = True, self.shown or bool(ref_latents)
        if ref_latents:
            ref_latents = [self._tile_of(latents, tile) for latents in ref_latents]
        if ref_latents and not (self.mode == KONTEXT and strength == 1):
            flux, following = executor.class_obj, transformer_options.get("optimized_attention_override")
            if self.mode == KONTEXT:  # core's own way but for the attention that the references get
                references = sum(flux.process_img(latents[:1])[0].shape[1] for latents in ref_latents)
                override = partial(_weigh, _ReferenceBias(references, strength), following)
            else:
                method = kwargs.get("ref_latents_method", flux.params.default_ref_method)
                beside = self._beside(flux, x, timestep, y, guidance, ref_latents, method, strength, transformer_options)
                override = partial(_attend, beside, len(flux.double_blocks), following)
                ref_latents = None
            transformer_options = {**transformer_options, "optimized_attention_override": override}
        return executor(x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs)

    def _tile_of(self, latents, tile):
        if tile is None:
            return latents
        full = self.full or tuple(latents.shape[2:])
        if any(start + size > whole for size, start, whole in zip(tile[:2], tile[2:], full)):
            raise ValueError(
                f"UMMF Conditioning: the condition's latent is {full[1]}x{full[0]}, but a tile of the sampled latent "
                f"reaches {tile[3] + tile[1]}x{tile[2] + tile[0]}; encode the degraded image at the sampled size."
            )
        return crop_to_tile(latents, tile, full)

    def _beside(self, flux, x, timestep, y, guidance, references, method, strength, transformer_options):
        """The condition tokens of this call: a stream, or keys and values that are known from an earlier one."""
        _, output_ids = flux.process_img(x[:1], transformer_options=transformer_options)
        columns = -(-x.shape[3] // flux.patch_size)
        grid = output_ids[0].unflatten(0, (-1, columns))
        tokens, ids = [], []
        for latents, place in zip(references, reference_places([r.shape[2:] for r in references], x.shape[2:], method)):
            tokens.append(flux.process_img(latents.to(x))[0])
            height, width = (-(-extent // flux.patch_size) for extent in latents.shape[2:])
            ids.append(condition_positions(grid, height, width, self.mode, place))
        tokens = torch.cat(tokens, 1)
        pooled = x.new_zeros(len(x), flux.params.vec_in_dim) if y is None else y[:, : flux.params.vec_in_dim]
        branch = ConditionBranch(flux.get_submodule, flux_dimensions(flux), self.mode, self.lora, self.lora_strength)
        if self.mode.constant:
            layout = transformer_options[TILES].layout if TILES in transformer_options else None
            if layout != self._layout:  # memory ran out: what was kept for larger tiles is in the way
                self._cache.clear()
                self._layout = layout
            most = MAX_KEPT * (layout.count if layout else 1)
            recalled = self._cache.recall(
                branch,
                tokens,
                ids,
                guidance,
                pooled,
                lambda q, k, v, _bias: attention(q, k, v),
                partial(self._fits, tokens.device),
                most,
            )
            if recalled is not None:
                return CachedCondition(*recalled, strength)
        return branch.start(tokens, ids, branch.vector(timestep, guidance, pooled), strength)

    def _fits(self, device, size):
        assert self._patcher is not None
        if size <= self._patcher.get_free_memory(device) / 2:
            return True
        logging.info("UMMF: %.1f GB of keys and values do not fit; they are computed at every step", size / 2**30)
        return False


def _attend(beside, double_blocks, following, func, query, key, value, heads, *args, mask=None, transformer_options, **kwargs):
    """The `optimized_attention_override` of a call: joins the condition to the attention of FLUX's own blocks."""
    index = transformer_options["block_index"]
    if transformer_options["block_type"] == "single":
        index += double_blocks

    def joined(q, k, v, bias):
        # In an attention of its own the condition's keys are as many as its queries, and the base's mask is not for it.
        ours = mask is None or (not beside.joint and q.shape[2] == k.shape[2])
        both = {"mask": bias if ours else _joined_mask(mask, q, k, bias), "transformer_options": transformer_options, **kwargs}
        return _then(following, func, q, k, v, heads, *args, **both)

    return beside.attend(index, query, key, value, joined)


class _ReferenceBias:
    """Strength as a bias on attention between the last `references` tokens of the sequence and the others."""

    def __init__(self, references, strength):
        self.references, self.bias = references, log_strength(strength)
        self._matrix = None

    def of(self, query):
        """(1, 1, N, N) for `query` (B, heads, N, head_dim); the same for every block."""
        if self._matrix is None:
            count = query.shape[2] - self.references
            matrix = query.new_zeros(1, 1, query.shape[2], query.shape[2])
            matrix[..., :count, count:] = matrix[..., count:, :count] = self.bias
            self._matrix = matrix
        return self._matrix


def _weigh(reference_bias, following, func, query, key, value, heads, *args, mask=None, **kwargs):
    """The `optimized_attention_override` of a call whose references FLUX reads by itself."""
    bias = reference_bias.of(query)
    mask = bias if mask is None else _joined_mask(mask, query, key, bias)
    return _then(following, func, query, key, value, heads, *args, mask=mask, **kwargs)


def _then(following, func, *args, **kwargs):
    return func(*args, **kwargs) if following is None else following(func, *args, **kwargs)


def _joined_mask(mask, query, key, bias):
    """The base's own attention mask, extended to the condition's tokens, together with `bias`."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
    mask = mask[(None,) * (4 - mask.ndim)] if mask.ndim < 3 else mask.view(len(mask), -1, *mask.shape[-2:])
    extra = (0, key.shape[2] - mask.shape[-1], 0, query.shape[2] - mask.shape[-2])
    mask = torch.nn.functional.pad(mask, extra)
    return mask if bias is None else mask + bias


def strength_hook(strength):
    """A HookGroup that gives the reference latents of a conditioning `strength`, on any native FLUX."""
    hooks = UMMFHooks(KONTEXT)

    def diffusion_model(executor, *args, **kwargs):
        if not isinstance(executor.class_obj, Flux):
            raise ValueError(
                f"UMMF Conditioning: a strength of {strength} needs ComfyUI's own FLUX, but the model is a "
                f"{type(executor.class_obj).__name__}; set strength to 1."
            )
        options = kwargs.get("transformer_options") or args[7]
        if KEY in options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {}):
            return executor(*args, **kwargs)  # Apply UMMF LoRA reads the strength itself
        return hooks.diffusion_model(executor, *args, **kwargs)

    added = {STRENGTH: strength, "wrappers": {WrappersMP.DIFFUSION_MODEL: {STRENGTH: [diffusion_model]}}}
    group = comfy.hooks.HookGroup()
    group.add(comfy.hooks.TransformerOptionsHook(added, comfy.hooks.EnumHookScope.HookedOnly))
    return group
