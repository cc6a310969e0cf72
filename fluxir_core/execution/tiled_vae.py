"""A VAE on images of any size: tile by tile in one pass, the tiles blended where they overlap."""

from .tiles import OVERLAP, TileGrid

LATENT = 8
"""Pixels a side of one latent pixel."""


def encode_in_tiles(encode, images, tile, scale=LATENT, overlap=OVERLAP):
    """Latents (B, C, H / scale, W / scale) of `images` (B, 3, H, W) by `encode`, which codes images of any size.

    No image that it is given has more than `tile` latent pixels a side; None sets no limit. H and W are multiples of `scale`.
    """
    height, width = (extent // scale for extent in images.shape[-2:])
    if tile is None or max(height, width) <= tile:
        return encode(images)
    grid, latents = TileGrid(height, width, tile, overlap), None
    for each in grid.tiles:
        part = encode(each.times(scale).of(images))
        if latents is None:
            latents = part.new_zeros(*part.shape[:-2], height, width)
        each.of(latents).add_(part * grid.window(each).to(part))
    return latents


def decode_in_tiles(decode, latents, tile, scale=LATENT, overlap=OVERLAP):
    """Images (B, 3, scale h, scale w) of `latents` (B, C, h, w): the way back, see `encode_in_tiles`."""
    height, width = latents.shape[-2:]
    if tile is None or max(height, width) <= tile:
        return decode(latents)
    grid, images = TileGrid(height, width, tile, overlap), None
    for each in grid.tiles:
        part = decode(each.of(latents))
        if images is None:
            images = part.new_zeros(*part.shape[:-2], scale * height, scale * width)
        window = grid.window(each).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        each.times(scale).of(images).add_(part * window.to(part))
    return images
