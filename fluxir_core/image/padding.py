"""Images of any size for a model that works on whole tokens: padded before it, cut back behind it."""

from torch.nn import functional as F

TOKEN = 16
"""Pixels a side of one token: the VAE's 8 times FLUX's patch of 2."""


def pad_to_tokens(images, token=TOKEN):
    """`images` (B, C, H, W) with its last row and column repeated until both sides are multiples of `token` pixels."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % token, 0, -height % token), mode="replicate")


def crop_back(images, size):
    """The part of `images` (B, C, H, W), padded by `pad_to_tokens`, that was the image of `size` (height, width).

    Raises ValueError when they are smaller.
    """
    height, width = size
    if images.shape[-2] < height or images.shape[-1] < width:
        raise ValueError(
            f"the result is {images.shape[-1]} x {images.shape[-2]} pixels, smaller than the photo of {width} x {height}; "
            "connect the photo that this result was made from."
        )
    return images[..., :height, :width]
