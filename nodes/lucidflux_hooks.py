"""Running LucidFlux beside ComfyUI's native FLUX, through public hooks only."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..fluxir_core.lucidflux.images import fit
from ..fluxir_core.lucidflux.model import SCALE
from .tile_context import tiles_of_call

NODE = "Apply LucidFlux"

MAX_PREPARED = 4
"""Distinct conditionings, or groups of tiles, whose embeddings are kept during a run."""

EVERYWHERE = (float("inf"), float("-inf"))


class Images(NamedTuple):
    """What LucidFlux sees, one row for all sampled images or one for each: `degraded` and `cleaned` (B, 3, H, W) in [0, 1],
    `features` (B, M, width) of the cleaned image."""

    degraded: torch.Tensor
    cleaned: torch.Tensor
    features: torch.Tensor


class _Prepared(NamedTuple):
    key: tuple
    context: torch.Tensor
    pooled: torch.Tensor
    conditions: object
    tokens: torch.Tensor


class LucidFluxHooks:
    """The hooks that let LucidFlux steer a native FLUX MODEL: one instance per Apply LucidFlux.

    network: LucidFlux, its weights managed by ComfyUI. images: Images, on the CPU.
    strength: factor on every residual.
    start_percent, end_percent: the part of sampling, 0 (noise) to 1 (image), in which it acts.
    """

    def __init__(self, network, images, strength, start_percent, end_percent):
        self.network, self.images, self.strength = network, images, strength
        self.percent = (start_percent, end_percent)
        self._sigma_range = EVERYWHERE
        self._fitted = None
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
        self._fitted = None

    def prepare_sampling(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: make room for the branches' activations and the semantic tokens.

        While the base runs, both branches' residuals and embedded images stay: about 6 * tokens * hidden values, near 3/16 of
        what ComfyUI reserves for FLUX.1 in bfloat16. The base's sequence grows by the semantic tokens. The noise shape only
        feeds that estimate.
        """
        *batch, height, width = noise_shape
        rows = -(-4 * self.images.features.shape[1] // width)  # of latent pixels, four of which are a token
        return executor(model, [*batch, height + -(-3 * height // 16) + rows, width], *args, **kwargs)

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
        """DIFFUSION_MODEL: run both branches once on this call's batch; FLUX adds their residuals as a ControlNet's, and reads
        the semantic tokens behind the text."""
        if self._acts_at(timestep):
            flux = executor.class_obj
            tokens, ids = flux.process_img(x, transformer_options=transformer_options)
            if y is None:
                y = x.new_zeros(x.shape[0], flux.params.vec_in_dim)
            prepared = self._prepare(flux, x, ids, context, y, transformer_options)
            own = self.network(tokens, timestep, guidance, prepared.conditions)
            others = control or {}
            residuals = Residuals(own, self.strength, len(flux.double_blocks), others.get("input", ()))
            control = {"output": [], **others, "input": residuals}
            if kwargs.get("attention_mask") is not None:
                count = prepared.tokens.shape[1]
                kwargs["attention_mask"] = with_seen_tokens(kwargs["attention_mask"], context.shape[1], count)
            context = torch.cat([context, prepared.tokens], 1)
        return executor(x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs)

    def _acts_at(self, timestep):
        if self._sigma_range == EVERYWHERE:  # spares the device a synchronization
            return True
        start, end = self._sigma_range
        return end <= float(timestep.max()) <= start

    def _prepare(self, flux, x, ids, context, y, transformer_options):
        """What does not depend on x_t and t, computed once per run for each distinct conditioning and size.

        Compared by content: cond and uncond take turns in calls of equal shape, and other packs may edit either.
        """
        rope = tuple(sorted(transformer_options.get("rope_options", {}).items()))
        called = tiles_of_call(transformer_options, x, NODE)
        key = (x.shape, x.dtype, x.device, rope, called)
        for entry in self._prepared:
            if entry.key == key and torch.equal(entry.context, context) and torch.equal(entry.pooled, y):
                return entry
        images = len(x) // len(called[1])
        degraded, cleaned = self._seen(x, *called)
        conditions = self.network.prepare(degraded, cleaned, context, y[:, : flux.params.vec_in_dim], ids)
        tokens = self.network.semantic_tokens(self._rows("image encoder's output", self.images.features, images).to(x))
        prepared = _Prepared(key, context.clone(), y.clone(), conditions, tokens.repeat(len(x) // images, 1, 1).to(context))
        del self._prepared[: -MAX_PREPARED + 1]
        self._prepared.append(prepared)
        return prepared

    def _seen(self, x, full, tiles):
        """The degraded and the cleaned image as x's rows: x holds one chunk of all images for each conditioning in the call,
        and each chunk is of the part of the latent that its conditioning is for."""
        if self._fitted is None or self._fitted[0] != full:
            self._fitted = (full, *(self._fit(name, *full) for name in ("degraded", "cleaned")))
        for name, image in zip(("degraded", "cleaned"), self._fitted[1:]):
            image = self._rows(f"{name} image", image, len(x) // len(tiles))
            yield torch.cat([tile.times(SCALE).of(image).to(x) for tile in tiles])

    def _fit(self, name, height, width):
        try:
            return fit(getattr(self.images, name), height, width)
        except ValueError as error:
            raise ValueError(f"{NODE}: {name}: {error}") from None

    def _rows(self, name, given, images):
        """`given` (B, ...) as many times as it takes for `images` sampled ones. Raises ValueError where it does not fit."""
        if images % len(given):  # a search samples several candidates of the whole batch, one after the other
            raise ValueError(
                f"{NODE}: {len(given)} rows of the {name} for a sampled batch of {images}; give one, or as many as are sampled."
            )
        return given.repeat(images // len(given), *[1] * (given.ndim - 1))


class Residuals(Sequence):
    """What FLUX adds behind each double block, as the "input" of a control: LucidFlux's, and `others` of a ControlNet.

    A block's is computed when it is asked for: all at once would be a third of the activations.
    """

    def __init__(self, control, strength, blocks, others):
        self._control, self._strength, self._blocks, self._others = control, strength, blocks, others

    def __len__(self):
        return self._blocks

    def __getitem__(self, block):
        if not 0 <= block < self._blocks:
            raise IndexError(block)
        own = self._strength * self._control.residual(block)
        other = self._others[block] if block < len(self._others) else None
        return own if other is None else own + other


def with_seen_tokens(mask, at, count):
    """The attention `mask` (..., N, N), boolean or added, with `count` more tokens in place `at`, which all see and are seen."""
    seen = mask.dtype == torch.bool
    for dim in (-1, -2):
        before, after = mask.split([at, mask.shape[dim] - at], dim)
        size = list(mask.shape)
        size[dim] = count
        mask = torch.cat([before, mask.new_full(size, seen), after], dim)
    return mask
