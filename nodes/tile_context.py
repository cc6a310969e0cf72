"""What a tiled model call tells the hooks inside it: which part of the latent it sees."""

from typing import NamedTuple

import comfy.conds
import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.utils

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
    """What a tiled model call says in transformer_options: its layout, and the tile of each conditioning's uuid."""

    layout: TileLayout
    tiles: dict


def tiles_of_call(transformer_options):
    """(the whole latent's (height, width), the tile of each chunk of this model call), or None where it sees everything."""
    known = transformer_options.get(TILES)
    if known is None:
        return None
    return known.layout.full, tuple(known.tiles[own] for own in transformer_options["uuids"])
