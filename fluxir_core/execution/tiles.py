"""Latents in overlapping tiles, blended after every model call (MultiDiffusion, arXiv 2302.08113, equation 5).

The whole latent is sampled as one, from one field of noise; only the model sees it tile by tile.
"""

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from .oom import is_out_of_memory

OVERLAP = 0.25
"""Least overlap of neighboring tiles, as a share of the tile."""


PATCH = 2
"""Tiles lie on FLUX's patches, but for the last of a side that does not."""


SMALLEST = 32
"""Latent pixels a side below which a tile is not halved: a transformer needs to see something."""


class Tile(NamedTuple):
    """A rectangle of a latent, as ComfyUI writes an area."""

    height: int
    width: int
    top: int
    left: int

    def of(self, tensor):
        """The tile's view of `tensor` (..., H, W)."""
        return tensor[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def times(self, scale):
        """The same place in an image that is `scale` times as large."""
        return Tile(*(scale * value for value in self))

    def shift(self, top, left):
        """The same tile in an image that begins `top` and `left` farther out."""
        return self._replace(top=self.top + top, left=self.left + left)


@dataclass(frozen=True)
class TileGrid:
    """Tiles of `tile` latent pixels a side over `height` x `width`; overlaps are equal up to a patch, and at least `overlap`.

    A side not longer than `tile` is one tile of its own length. Raises ValueError for a tile under PATCH or an overlap
    outside [0, 0.5].
    """

    height: int
    width: int
    tile: int
    overlap: float = OVERLAP

    def __post_init__(self):
        if self.tile < PATCH:
            raise ValueError(f"tile is {self.tile} latent pixels; use at least {PATCH}.")
        if not 0 <= self.overlap <= 0.5:
            raise ValueError(f"overlap is {self.overlap}; use a share of the tile from 0 to 0.5.")

    @cached_property
    def borders(self):
        """(rows, columns) at which a tile begins or ends inside the latent, ascending."""
        return tuple(
            sorted({place for start in starts for place in (start, start + size)} - {0, length})
            for length, (size, starts) in zip((self.height, self.width), self._axes)
        )

    @cached_property
    def _axes(self):
        return tuple(_spans(length, self.tile, self.overlap) for length in (self.height, self.width))

    @cached_property
    def tiles(self):
        """All tiles, row by row."""
        (height, tops), (width, lefts) = self._axes
        return [Tile(height, width, top, left) for top in tops for left in lefts]

    @cached_property
    def _weights(self):
        return tuple(_windows(length, *axis) for length, axis in zip((self.height, self.width), self._axes))

    def window(self, tile):
        """The weight (height, width) float32 of `tile` in the blend: Hann's window over the sum of everyone's there."""
        rows, columns = (weights[starts.index(start)] for weights, (_, starts), start in zip(self._weights, self._axes, tile[2:]))
        return (rows[:, None] * columns[None]).float()

    def blend(self, parts, like):
        """One image of `parts` [(tile, (..., tile height, tile width))], of the shape and type of `like` (..., H, W).

        Parts of all tiles make the whole; those of some, their share of the sum.
        """
        whole = torch.zeros_like(like)
        for tile, part in parts:
            tile.of(whole).add_(part * self.window(tile).to(part))
        return whole


def _spans(length, tile, overlap):
    """(size, starts) of the tiles over `length`."""
    if length <= tile:
        return length, [0]
    size = tile - tile % PATCH
    shared = math.ceil(size * overlap)
    count = math.ceil((length - shared) / (size - shared))
    starts = [PATCH * round(i * (length - size) / (count - 1) / PATCH) for i in range(count - 1)]
    return size, [*starts, length - size]


def _windows(length, size, starts):
    """Each tile's share (count, size) float64 at its places; the shares of all tiles sum to one everywhere."""
    hann = torch.sin(math.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size).square()
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += hann
    return torch.stack([hann / total[start : start + size] for start in starts])


class TiledRun:
    """Tile size and tiles at once of one sampling run; both only ever get smaller.

    Running out of memory halves the tiles at once, and when there is one, the tile, down to SMALLEST; the step then begins
    again.
    """

    def __init__(self, tile, at_once, overlap=OVERLAP):
        if at_once < 1:
            raise ValueError(f"{at_once} tiles at once; use at least 1.")
        self.tile, self.at_once, self.overlap = tile, at_once, overlap

    def grid(self, height, width):
        """The TileGrid of a latent, or of a region of one."""
        return TileGrid(height, width, self.tile, self.overlap)

    def attempt(self, function):
        """`function(self)`, again with less at once for as long as memory runs out."""
        while True:
            try:
                return function(self)
            except Exception as error:
                if not is_out_of_memory(error) or (self.at_once == 1 and self.tile < 2 * SMALLEST):
                    raise
            # Behind the except block: the exception keeps the failed call's tensors alive.
            self._halve()

    def _halve(self):
        if self.at_once > 1:
            self.at_once //= 2
        else:
            self.tile //= 2
        logging.warning(
            "Tiles: out of memory; going on with %d at once of at most %d latent pixels a side", self.at_once, self.tile
        )
        torch.cuda.empty_cache()


def in_groups(items, size):
    """`items` in lists of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def map_tiles(function, x, run):
    """`function(crops, tiles)` on groups of tiles of x (..., H, W), blended to x's shape.

    It gets a list of crops with their tiles and returns as many results of the crops' shapes.
    """

    def step(run):
        grid = run.grid(*x.shape[-2:])
        whole = torch.zeros_like(x)
        for tiles in in_groups(grid.tiles, run.at_once):
            whole += grid.blend(zip(tiles, function([tile.of(x) for tile in tiles], tiles)), x)
        return whole

    return run.attempt(step)


def crop_to_tile(latents, tile, full):
    """The part of condition `latents` (B, C, h, w) that belongs to a tile of the sampled latent.

    `tile` is (height, width, top, left), `full` the sampled latent's (height, width); the condition may have another
    resolution, and is then cropped to its nearest whole tokens.
    """
    for axis, (size, start, whole) in enumerate(zip(tile[:2], tile[2:], full), -2):
        extent = latents.shape[axis]
        if extent == whole:
            first, last = start, start + size
        else:
            first = min(2 * round(start * extent / whole / 2), extent - 1)
            last = max(2 * round((start + size) * extent / whole / 2), first + 1)
        latents = latents.narrow(axis, first, min(last, extent) - first)
    return latents
