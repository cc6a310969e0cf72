"""Computing a MODEL's calls tile by tile, through public hooks only.

ComfyUI itself knows regions: a conditioning with an `area` sees a crop of the latent, and a `mask` weighs what comes back.
A tiled call is the same conditioning once for each tile, with the tile as area and its window as mask, so cfg, batches,
concatenated latents, masks and hooks are ComfyUI's own affair.
"""

import copy
import logging
import time
import uuid
from typing import Any

import comfy.conds
import comfy.model_management
import comfy.samplers
import comfy.utils
import torch

from ..fluxir_core.execution.tiles import SMALLEST, Tile, TiledRun, crop_to_tile, in_groups
from ..fluxir_core.searches.summary import say_time
from .degraded_latent import in_pixels
from .tile_context import PLACE, TILE, TILES, TileLayout, TileMap, of_tile
from .tile_patches import TilePatches

NODE = "Tile Model"


USUAL = 1024
"""Pixels a side of a tile unless memory is short: FLUX's own training size."""


MOST_AT_ONCE = 8


RESERVE = 0.8
"""Share of the free memory that tiles of one call may be predicted to take."""


class TileHooks:
    """The hooks that tile a MODEL: one instance per Tile Model.

    tile: largest side in pixels, 0 to choose it by memory. overlap: the least, as a share of the tile. say: tells the artist.
    """

    def __init__(self, tile, overlap, say=logging.info):
        self.tile, self.overlap, self.say = tile, overlap, say
        self._run, self._told = None, None
        self._controls, self._patches = {}, TilePatches()

    def cleanup(self, _model_patcher):
        """ON_CLEANUP, also after an interrupt or an error: nothing of one run outlives it."""
        self._run = None
        self._controls.clear()
        self._patches.clear()

    def prepare_sampling(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: only a tile's activations need room beside the weights."""
        if len(noise_shape) in (4, 5):
            tile = self._tile_size(model.model, noise_shape)
            noise_shape = [*noise_shape[:-2], *(min(tile, extent) for extent in noise_shape[-2:])]
        return executor(model, noise_shape, *args, **kwargs)

    def _tile_size(self, model, shape):
        """Latent pixels a side: as asked, or USUAL, halved until one tile is predicted to take half the device at most."""
        ratio = model.latent_format.spacial_downscale_ratio
        if self.tile:
            return max(1, self.tile // ratio)
        tile, device = USUAL // ratio, comfy.model_management.get_torch_device()
        total: Any = comfy.model_management.get_total_memory(device)
        while tile >= 2 * SMALLEST and _needed(model, shape, tile) > total / 2:
            tile //= 2
        return tile

    def _start(self, model, x):
        tile = self._tile_size(model, x.shape)
        free = model.current_patcher.get_free_memory(x.device)
        needed = _needed(model, x.shape, tile)
        at_once = max(1, min(MOST_AT_ONCE, int(RESERVE * free / max(needed, 1))))
        try:
            run = TiledRun(tile, at_once, self.overlap)
            count = len(run.grid(*x.shape[-2:]).tiles)
        except ValueError as error:
            raise ValueError(f"{NODE}: {error}") from None
        if count > 1:
            ratio = model.latent_format.spacial_downscale_ratio
            self._told = f"{in_pixels(x, ratio)} pixels: {count} tiles of up to {ratio * tile} a side in every step"
            self.say(self._told)
            logging.info(
                "%s: %d tiles of %d latent pixels a side, %d at once, %.1f GB each by prediction, %.1f GB free",
                NODE,
                count,
                tile,
                at_once,
                needed / 2**30,
                free / 2**30,
            )
        return run

    def calc_cond_batch(self, executor, model, conds, x, timestep, model_options):
        """CALC_COND_BATCH: the outputs of all conditionings for x, blended of their tiles."""
        if x.ndim not in (4, 5):
            return executor(model, conds, x, timestep, model_options)
        if self._run is None:
            self._run = self._start(model, x)
        if max(x.shape[-2:]) <= self._run.tile:
            height, width = x.shape[-2:]
            whole, full = Tile(height, width, 0, 0), (height, width)
            conds = [conditionings and of_tile(conditionings, whole, full) for conditionings in conds]
            return executor(model, conds, x, timestep, model_options)
        return self._run.attempt(lambda run: self._tiled(run, executor, model, conds, x, timestep, model_options))

    def _tiled(self, run, executor, model, conds, x, timestep, model_options):
        by_tile, full = {}, tuple(x.shape[-2:])
        for index, conditionings in enumerate(conds):
            for cond in conditionings or ():
                for tile, weight in self._weights(run, cond, x, timestep):
                    if PLACE not in cond or any(cond is own for own in of_tile(conditionings, tile, full)):
                        by_tile.setdefault(tile, []).append((index, self._cond_of(cond, tile, x), tile, weight))
        options = dict(model_options.get("transformer_options", {}))
        at_once = 1 if self._patches.apart(options) else run.at_once
        layout = TileLayout(full, run.tile, at_once, len(by_tile))
        totals, counts = ([torch.zeros_like(x) for _ in conds] for _ in range(2))
        groups = list(in_groups(list(by_tile.values()), at_once))
        for number, group in enumerate(groups):
            comfy.model_management.throw_exception_if_processing_interrupted()
            started = time.perf_counter()
            own: list = [None if c is None else [] for c in conds]
            weights, tiles = [0.0 for _ in conds], {}
            for index, cond, tile, weight in (entry for entries in group for entry in entries):
                mask = x.new_zeros(len(x), *x.shape[2:])
                tile.of(mask).copy_(weight)
                own[index].append({**cond, "mask": mask})
                weights[index] = weights[index] + mask.unsqueeze(1)
                tiles[cond["uuid"]] = tile
            options[TILES] = TileMap(full, tiles, layout)
            ratio = model.latent_format.spacial_downscale_ratio
            with self._patches.of(options, group[0][0][2], x, ratio) as of_tiles:
                outputs = executor(model, own, x, timestep, {**model_options, "transformer_options": of_tiles})
            if number == 0:
                self._tell_time(outputs, time.perf_counter() - started, len(groups), options.get("sample_sigmas"))
            for index, output in enumerate(outputs):  # ComfyUI has divided each by the sum of its weights
                totals[index] += output * weights[index]
                counts[index] += weights[index]
        return [total / count.clamp(min=1e-37) for total, count in zip(totals, counts)]

    def _tell_time(self, outputs, seconds, groups, sigmas):
        """Says once a run, after its first tiles, what all of it will take; the rest of a device's work is waited for."""
        if self._told is None or groups < 2 or sigmas is None:
            return
        started = time.perf_counter()
        float(outputs[0].sum())
        step, steps = groups * (seconds + time.perf_counter() - started), len(sigmas) - 1
        self.say(f"{self._told}: about {say_time(step)} a step, {say_time(step * steps)} for {steps} steps")
        self._told = None

    def _weights(self, run, cond, x, timestep):
        """(tile, its weight (B, ..., h, w)) of each tile of the part of x that `cond` is for; none where it does not act.

        A region is tiled like a latent of its own; the weight is the window times ComfyUI's own for the region.
        """
        if "default" in cond:
            raise ValueError(
                f"{NODE}: a default conditioning (Cond Set Default Combine) cannot be tiled; give the rest of the image "
                "a conditioning with a mask of its own."
            )
        part = comfy.samplers.get_area_and_mult(cond, x, timestep)
        if part is None:
            return
        dims = x.ndim - 2
        top, left = (0, 0) if part.area is None else part.area[2 * dims - 2 : 2 * dims]
        grid = run.grid(*part.mult.shape[-2:])
        for tile in grid.tiles:
            weight = tile.of(part.mult[:, 0]) * grid.window(tile).to(x)
            if (part.area is None and "mask" not in cond) or weight.any():
                yield tile.shift(top, left), weight

    def _cond_of(self, cond, tile, x):
        """`cond` for one tile: what belongs to places is cropped, everything else is shared."""
        own = {key: value for key, value in cond.items() if key not in ("strength", "mask_strength")}
        own |= {"area": tuple(tile), "uuid": uuid.uuid5(cond["uuid"], str(tuple(tile)))}
        own["model_conds"] = _cropped_references(cond["model_conds"], tile, tuple(x.shape[-2:]))
        if cond.get("control") is not None:
            own["control"] = self._control_of(cond["control"], tile, x)
        return own

    def _control_of(self, control, tile, x):
        """A copy of a ControlNet whose image is the tile's, made once a run: all else is shared with the original."""
        key = (id(control), tile)
        if key not in self._controls:
            if getattr(control, "cond_hint_original", None) is None:
                raise ValueError(
                    f"{NODE}: the control is a {type(control).__name__}, whose image cannot be cut into tiles; use a "
                    "ControlNet of ComfyUI's own, or leave it out."
                )
            own = copy.copy(control)
            own.cond_hint, own.cond_hint_original = None, _crop_hint(control, control.cond_hint_original, tile, x)
            own.extra_concat = None
            own.extra_concat_orig = [_crop_hint(control, extra, tile, x) for extra in control.extra_concat_orig]
            if control.previous_controlnet is not None:
                own.previous_controlnet = self._control_of(control.previous_controlnet, tile, x)
            self._controls[key] = own
        return self._controls[key]


def _needed(model, shape, tile):
    """Bytes that ComfyUI predicts for a call on one tile of every image, cond and uncond counted."""
    return model.memory_required([2 * shape[0], *shape[1:-2], *(min(tile, extent) for extent in shape[-2:])])


def _cropped_references(model_conds, tile, full):
    """`model_conds` with the tile's part of those reference latents that show the sampled image.

    UMMF Conditioning marks its own by TILE. Of other references (FLUX.1 Kontext's) those of the latent's aspect ratio are
    cropped; an image of another shape is another image, and is shown whole.
    """
    references = model_conds.get("ref_latents")
    marked = TILE in model_conds
    model_conds = {key: value for key, value in model_conds.items() if key != TILE}
    if references is not None:
        cropped = [
            crop_to_tile(latents, tile, full) if marked or _same_image(latents, full) else latents for latents in references.cond
        ]
        model_conds["ref_latents"] = comfy.conds.CONDList(cropped)
    return model_conds


def _same_image(latents, full):
    height, width = latents.shape[-2:]
    return abs(height * full[1] - width * full[0]) <= 2 * max(full)


def _crop_hint(control, hint, tile, x):
    """The tile's part of a ControlNet's image (B, C, H, W), brought to the whole latent's size as ComfyUI does."""
    ratio = control.compression_ratio
    if getattr(control, "vae", None) is not None:
        ratio *= control.vae.spacial_compression_encode()
    height, width = (ratio * extent for extent in x.shape[-2:])
    hint = comfy.utils.common_upscale(hint, width, height, control.upscale_algorithm, "center")
    return tile.times(ratio).of(hint)
