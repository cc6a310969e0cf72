"""What a tiled model call tells the hooks inside it: which part of the latent it sees."""

from typing import NamedTuple

import comfy.conds
import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.utils

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
    """What a tiled model call says in transformer_options: its layout, and the tile of each conditioning's uuid."""

    layout: TileLayout
    tiles: dict


def tiles_of_call(transformer_options):
    """(the whole latent's (height, width), the tile of each chunk of this model call), or None where it sees everything."""
    known = transformer_options.get(TILES)
    if known is None:
        return None
    return known.layout.full, tuple(known.tiles[own] for own in transformer_options["uuids"])


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
