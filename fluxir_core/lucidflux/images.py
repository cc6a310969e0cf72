"""Images brought to the size that LucidFlux's branches see them in."""

from torch.nn import functional as F

from ..image.padding import TOKEN, pad_to_tokens
from .model import SCALE


def fit(images, height, width):
    """`images` (B, 3, H, W) in [0, 1] as (B, 3, 8 `height`, 8 `width`), for a latent of `height` x `width`.

    An image that is less than a latent pixel too large is cropped in the middle, as ComfyUI's VAE Encode crops it; one that is
    less than a token too small is filled up, as Encode Photo fills it; one of another resolution is resized. Raises ValueError
    where the shapes differ by more than a latent pixel.
    """
    wanted = (SCALE * height, SCALE * width)
    given = tuple(images.shape[-2:])
    spare = [have - want for have, want in zip(given, wanted)]
    if all(0 <= extra < SCALE for extra in spare):
        top, left = (extra // 2 for extra in spare)
        return images[..., top : top + wanted[0], left : left + wanted[1]]
    if all(0 <= -extra < TOKEN for extra in spare) and all(want % TOKEN == 0 for want in wanted):
        return pad_to_tokens(images)
    # What the longer side says of the shorter one, in pixels of the result.
    if abs(given[0] * wanted[1] - given[1] * wanted[0]) > SCALE * max(given):
        raise ValueError(
            f"an image is {given[1]}x{given[0]} but the sampled latent is for {wanted[1]}x{wanted[0]} pixels; sample a latent of "
            "the image's shape."
        )
    return F.interpolate(images, wanted, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
