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
PLACE = "fluxir_tile_place"
"""Where in the image a conditioning of Prompt per Tile is for: (top, left, bottom, right) as shares of it."""


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


def tiles_of_call(transformer_options, x, node):
    """(the whole latent's (height, width), the Tile of it that each chunk of the model call on x (rows, ..., h, w) sees).

    Raises ValueError in `node`'s name where another node cuts the latent without saying how.
    """
    known, size = transformer_options.get(TILES), tuple(x.shape[-2:])
    uuids = transformer_options.get("uuids", ())
    if known is None or not all(own in known.tiles for own in uuids):
        height, width = size
        return size, (Tile(height, width, 0, 0),) * len(transformer_options.get("cond_or_uncond", (0,)))
    tiles = tuple(known.tiles[own] for own in uuids)
    if any(tile[:2] != size for tile in tiles):
        full = known.full
        raise ValueError(
            f"{node}: another node cuts the sampled latent of {full[1]}x{full[0]} into parts of {size[1]}x{size[0]} without "
            "saying which; use Tile Model in its place."
        )
    return known.full, tiles


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


def of_tile(conditionings, tile, full):
    """Those of `conditionings` that speak for `tile` of a latent of size `full` (height, width): all that have no place, and of
    the others those whose place covers most of the tile."""
    placed = {cond[PLACE] for cond in conditionings if PLACE in cond}
    best = max(placed, key=lambda place: _shared(place, tile, full), default=None)
    return [cond for cond in conditionings if PLACE not in cond or cond[PLACE] == best]


def _shared(place, tile, full):
    """(the area that a place and a tile share, minus the place's own, minus its distance from the tile's middle)."""
    spans = [(tile.top / full[0], (tile.top + tile.height) / full[0]), (tile.left / full[1], (tile.left + tile.width) / full[1])]
    shared, area, distance = 1.0, 1.0, 0.0
    for (first, last), (start, end) in zip(spans, ((place[0], place[2]), (place[1], place[3]))):
        shared *= max(0.0, min(last, end) - max(first, start))
        area *= end - start
        distance += abs(first + last - start - end)
    return round(shared, 6), -round(area, 6), -distance
