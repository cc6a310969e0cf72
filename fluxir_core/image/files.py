"""Images to and from files, as float tensors: the one place that decides what becomes of odd and broken files."""

import io
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageOps

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Of the files that are looked for in a folder of images."""
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF's tag of how the camera was held, and its values that swap height and width."""


@contextmanager
def _opened(file, name):
    try:
        with Image.open(file) as image:
            yield image
    except FileNotFoundError:
        raise ValueError(f"There is no image at {name or file}; give the path of a PNG or JPEG file.") from None
    except Exception as error:  # a broken file leads Pillow's decoders to any exception
        raise ValueError(f"{name or file} cannot be read as an image ({error}); give a PNG or JPEG file.") from None


def load_image(file, name=None):
    """The image in `file`, a path or an open binary file, as (3, H, W) float32 in [0, 1].

    It is turned upright by EXIF (in a PNG, where that stands before the pixels), gray is repeated in three channels, CMYK
    becomes RGB by Pillow's formula, transparent parts lie on white, of an animation the first frame is taken. 16-bit gray
    keeps its precision; 16-bit color has 8 bits after Pillow. Raises ValueError with one sentence, which calls the file
    `name`, when it is missing, broken or no image, holds floating-point numbers, or has more than Pillow's limit of 179
    million pixels.
    """
    with _opened(file, name) as image:
        if _orientation(image):
            image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("its floating-point numbers have no known range")
        if image.mode.startswith("I"):  # 16 bits; older releases of Pillow read them as 32
            pixels = np.repeat(np.asarray(image, np.float32)[..., None] / 65535, 3, axis=-1).clip(0, 1)
        else:
            if image.has_transparency_data:
                layer = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(file, name=None):
    """(height, width) that `load_image` would give, from the file's header alone. Raises ValueError as it does."""
    with _opened(file, name) as image:
        width, height = image.size
        return (width, height) if _orientation(image) in TURNED else (height, width)


def _orientation(image):
    # PngImageFile's own method would decode the image, to look behind it.
    return Image.Image.getexif(image).get(ORIENTATION)


def to_pil(image):
    """`image` (3, H, W) in [0, 1] as a PIL image, 8 bits a channel."""
    return Image.fromarray((image.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy())


def save_image(image, path):
    """Writes `image` (3, H, W) in [0, 1] to `path`, 8 bits a channel; the format follows the file's suffix."""
    to_pil(image).save(path)


def png_bytes(image):
    """`image` (3, H, W) in [0, 1] as a PNG file of 8 bits a channel."""
    file = io.BytesIO()
    to_pil(image).save(file, "PNG")
    return file.getvalue()
