"""A VAE on images of any size: tile by tile in one pass, the tiles blended where they overlap."""

import torch

from .tiles import OVERLAP, PATCH, TileGrid

LATENT = 8
"""Pixels a side of one latent pixel."""


def encode_in_tiles(encode, images, tile, scale=LATENT, overlap=OVERLAP) -> torch.Tensor:
    """Latents (B, C, H / scale, W / scale) of `images` (B, 3, H, W) by `encode`, which codes images of any size.

    No image that it is given has more than `tile` latent pixels a side; None sets no limit. H and W are multiples of `scale`.
    """
    height, width = (extent // scale for extent in images.shape[-2:])
    if tile is None or max(height, width) <= tile:
        return encode(images)
    grid, latents = _grid(height, width, tile, overlap), torch.empty(0)
    for each in grid.tiles:
        part = encode(each.times(scale).of(images))
        if not latents.numel():
            latents = part.new_zeros(*part.shape[:-2], height, width)
        each.of(latents).add_(part * grid.window(each).to(part))
    return latents


def decode_in_tiles(decode, latents, tile, scale=LATENT, overlap=OVERLAP) -> torch.Tensor:
    """Images (B, 3, scale h, scale w) of `latents` (B, C, h, w): the way back, see `encode_in_tiles`."""
    height, width = latents.shape[-2:]
    if tile is None or max(height, width) <= tile:
        return decode(latents)
    grid, images = _grid(height, width, tile, overlap), torch.empty(0)
    for each in grid.tiles:
        part = decode(each.of(latents))
        if not images.numel():
            images = part.new_zeros(*part.shape[:-2], scale * height, scale * width)
        window = grid.window(each).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        each.times(scale).of(images).add_(part * window.to(part))
    return images


def tile_count(height, width, tile, overlap=OVERLAP):
    """How many tiles of at most `tile` a side an image of `height` and `width`, all in latent pixels, is coded in."""
    return 1 if max(height, width) <= tile else len(_grid(height, width, tile, overlap).tiles)


def _grid(height, width, tile, overlap):
    """The TileGrid of as few tiles as `tile` allows, and these no larger than so few must be: overlaps cost time."""
    grid = TileGrid(height, width, tile, overlap)
    while len((smaller := TileGrid(height, width, grid.tile - PATCH, overlap)).tiles) == len(grid.tiles):
        grid = smaller
    return grid
