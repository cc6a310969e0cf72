"""A VAE on images of any size: tile by tile in one pass, the tiles blended where they overlap."""

import torch

from .tiles import OVERLAP, PATCH, TileGrid

LATENT = 8
"""Pixels a side of one latent pixel."""


def encode_in_tiles(encode, images, tile, scale=LATENT, overlap=OVERLAP) -> torch.Tensor:
    """Encodes images of any size, tile by tile where they are large.

    Args:
        encode: images (B, 3, h, w) -> latents (B, C, h / scale, w / scale).
        images: (B, 3, H, W), as `encode` takes them; H and W are multiples of `scale`.
        tile: the most latent pixels a side of what `encode` is given; None sets no limit.
        scale: pixels a side of a latent pixel.
        overlap: least overlap of neighboring tiles, as a share of the tile.

    Returns:
        (B, C, H / scale, W / scale).

    Raises:
        ValueError: tiles are needed and `tile` is under PATCH, or `overlap` outside [0, 0.5].
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
    """Decodes latents of any size, tile by tile where they are large: the way back of `encode_in_tiles`.

    Args:
        decode: latents (B, C, h, w) -> images (B, 3, scale h, scale w).
        latents: (B, C, h, w).
        tile: the most latent pixels a side of what `decode` is given; None sets no limit.
        scale: pixels a side of a latent pixel.
        overlap: least overlap of neighboring tiles, as a share of the tile.

    Returns:
        (B, 3, scale h, scale w), as `decode` gives them.

    Raises:
        ValueError: tiles are needed and `tile` is under PATCH, or `overlap` outside [0, 0.5].
    """
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
    """Counts the tiles that an image is coded in.

    Args:
        height, width: of the image, in latent pixels.
        tile: the most latent pixels a side of a tile.
        overlap: share of a tile, 0 to 0.5.

    Returns:
        The number of tiles.
    """
    return 1 if max(height, width) <= tile else len(_grid(height, width, tile, overlap).tiles)


def _grid(height, width, tile, overlap):
    """The TileGrid of as few tiles as `tile` allows, and these no larger than so few must be: overlaps cost time."""
    grid = TileGrid(height, width, tile, overlap)
    while grid.tile >= 2 * PATCH and len((smaller := TileGrid(height, width, grid.tile - PATCH, overlap)).tiles) == len(grid.tiles):
        grid = smaller
    return grid
