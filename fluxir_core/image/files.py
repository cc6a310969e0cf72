"""Pictures to and from files, as float tensors."""

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Of the files that are looked for in a folder of pictures."""


def load_picture(path):
    """The picture at `path` as (3, H, W) float32 in [0, 1]: upright by EXIF, alpha dropped, grey in three channels.

    Raises ValueError with one sentence when the file is missing or is no picture.
    """
    try:
        with Image.open(path) as picture:
            picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith("I;16"):
                pixels = np.repeat(np.asarray(picture, np.float32)[..., None] / 65535, 3, axis=-1)
            else:
                pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    except FileNotFoundError:
        raise ValueError(f"There is no picture at {path}; give the path of a PNG or JPEG file.") from None
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); give a PNG or JPEG file.") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def save_picture(picture, path):
    """Writes `picture` (3, H, W) in [0, 1] to `path`, 8 bits a channel; the format follows the file's suffix."""
    pixels = (picture.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(path)
