"""Running LucidFlux beside ComfyUI's native FLUX, through public hooks only."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..fluxir_core.flux.layers import within_half
from ..fluxir_core.lucidflux.images import fit
from ..fluxir_core.lucidflux.model import SCALE
from .beside_flux import HooksBesideFlux

KEY, NODE = "fluxir_lucidflux", "Apply LucidFlux"


class Images(NamedTuple):
    """What LucidFlux sees, one row for all sampled images or one for each: `degraded` and `cleaned` (B, 3, H, W) in [0, 1],
    `features` (B, M, width) of the cleaned image."""

    degraded: torch.Tensor
    cleaned: torch.Tensor
    features: torch.Tensor


class LucidFluxHooks(HooksBesideFlux):
    """The hooks that let LucidFlux steer a native FLUX MODEL: one instance per Apply LucidFlux.

    images: Images, on the CPU.
    patcher, strength, start_percent, end_percent: as HooksBesideFlux; the network is a LucidFlux.
    """

    key, node = KEY, NODE

    def __init__(self, images, patcher, strength, start_percent, end_percent):
        super().__init__(patcher, strength, start_percent, end_percent)
        self.images = images
        self._fitted = None

    def cleanup(self, model_patcher):
        super().cleanup(model_patcher)
        self._fitted = None

    def reserve(self, model, noise_shape):
        """While the base runs, both branches' residuals and embedded images stay: about 6 * tokens * hidden values, near 3/16 of
        what ComfyUI reserves for FLUX.1 in bfloat16. The base's sequence grows by the semantic tokens."""
        *batch, height, width = noise_shape
        rows = -(-4 * self.images.features.shape[1] // width)  # of latent pixels, four of which are a token
        return [*batch, height + -(-3 * height // 16) + rows, width]

    def steer(self, network, flux, call, kwargs):
        """Runs both branches once on this call's batch; FLUX adds their residuals as a ControlNet's, and reads the semantic tokens
        behind the text."""
        tokens, ids = flux.process_img(call.x, transformer_options=call.transformer_options)

        def prepare(pooled, full, tiles):
            images = len(call.x) // len(tiles)
            degraded, cleaned = self._seen(call.x, full, tiles)
            conditions = network.prepare(degraded, cleaned, call.context, pooled, ids)
            seen = network.semantic_tokens(self._rows("image encoder's output", self.images.features, images).to(call.x))
            return conditions, seen.repeat(len(tiles), 1, 1).to(call.context)

        conditions, seen = self.prepared(flux, call, prepare)
        own, others = network(tokens, call.timestep, call.guidance, conditions), call.control or {}
        residuals = Residuals(own, self.strength, len(flux.double_blocks), others.get("input", ()))
        if kwargs.get("attention_mask") is not None:
            mask = with_seen_tokens(kwargs["attention_mask"], call.context.shape[1], seen.shape[1])
            kwargs = {**kwargs, "attention_mask": mask}
        context = torch.cat([call.context, seen], 1)
        return call._replace(context=context, control={"output": [], **others, "input": residuals}), kwargs

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
        own = within_half(self._strength * self._control.residual(block))
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
