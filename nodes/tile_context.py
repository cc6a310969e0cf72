"""What a tiled model call tells the hooks inside it: which part of the latent it sees."""

from typing import NamedTuple

import comfy.conds
import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.utils

from ..fluxir_core.execution.tiles import Tile

TILE = "fluxir_tile"


TILES = "fluxir_tiles"


class TileCond(comfy.conds.CONDConstant):
    """Tells the model call which (height, width, top, left) of the latent it sees, or None for all of it."""

    def process_cond(self, batch_size, area=None, **kwargs):
        return self._copy_with(None if area is None else tuple(area))


class TileLayout(NamedTuple):
    """The tiles of a latent of size `full` (height, width): another layout whenever they change."""

    full: tuple
    tile: int
    at_once: int
    count: int


class TileMap(NamedTuple):
    """What a model call says in transformer_options: the whole latent's (height, width), which Tile of it each conditioning
    sees, by uuid, and the TileLayout where Tile Model cuts the latent."""

    full: tuple
    tiles: dict
    layout: TileLayout | None = None


def tiles_of_call(transformer_options):
    """(the whole latent's (height, width), the tile of each chunk of this model call), or None where it is not known."""
    known = transformer_options.get(TILES)
    if known is None or not all(own in known.tiles for own in transformer_options.get("uuids", ())):
        return None
    return known.full, tuple(known.tiles[own] for own in transformer_options["uuids"])


def see_regions(executor, model, conds, x, timestep, model_options):
    """CALC_COND_BATCH: says which part of x (..., H, W) each conditioning is for, because a model call sees only that part.

    Whatever cuts by areas is covered: regional prompts, the bounds of masks, and Tile Model, inside of this wrapper or outside.
    """
    options = model_options.get("transformer_options", {})
    tiles = {cond["uuid"]: _region(cond, *x.shape[-2:]) for conditionings in conds for cond in conditionings or ()}
    known = TileMap(tuple(x.shape[-2:]), tiles, options[TILES].layout if TILES in options else None)
    return executor(model, conds, x, timestep, {**model_options, "transformer_options": {**options, TILES: known}})


def _region(cond, height, width):
    """The Tile of a latent of `height` x `width` that `cond` is for."""
    if "area" not in cond:
        return Tile(height, width, 0, 0)
    dims = len(cond["area"]) // 2
    rows, columns, top, left = (*cond["area"][:2], *cond["area"][dims : dims + 2])
    return Tile(min(rows, height - top), min(columns, width - left), top, left)
