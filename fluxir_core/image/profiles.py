"""Color profiles: what a file's numbers mean, as sRGB."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Pillow's mode for an ICC profile's color space."""
LEVELS = 17
"""Points along each axis at which a profile is compared with sRGB."""
INTEROPERABILITY, INDEX, EXIF_COLOR_SPACE = 0xA005, 1, 0xA001
ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]], np.float32)
"""Linear Adobe RGB (1998) to linear sRGB; both have the same white."""
ADOBE_GAMMA = 2.19921875


class ProfileError(ValueError):
    """A color profile that cannot be applied."""


def to_srgb(image, profile):
    """`image` (PIL, without alpha) as mode RGB in sRGB, by its ICC `profile` (bytes); 16-bit gray stays as precise.

    Colors outside sRGB are clipped, black stays black (relative colorimetric with black point compensation). A profile that
    means sRGB changes nothing. Raises ProfileError when the profile is broken or belongs to another kind of image.
    """
    try:
        mode, transform = _transform(profile)
        if image.mode.startswith("I"):
            return _deep_gray(image, mode, transform)
        if image.mode in ("CMYK", "LAB") or mode in ("CMYK", "LAB"):
            if image.mode != mode:
                raise ProfileError(f"it is for {mode}, the image is {image.mode}")
        else:
            image = image.convert(mode)
        return image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform)
    except ProfileError:
        raise
    except ImportError:
        raise ProfileError("this Pillow has no littleCMS") from None
    except (ImageCms.PyCMSError, OSError, KeyError, TypeError, ValueError):
        raise ProfileError("it is broken, or of a kind that is not known") from None


@lru_cache(16)
def _transform(profile):
    """The mode that `profile` is for, and its transform to sRGB; None for the latter where it changes no color by more than
    a step of 8 bits."""
    source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = MODES[source.profile.xcolor_space.strip()]
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode in ("RGB", "L"):
        axes = np.linspace(0, 255, LEVELS).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(axes, axes, axes, indexing="ij"), -1).reshape(LEVELS, -1, 3)
        colors = Image.fromarray(grid if mode == "RGB" else np.ascontiguousarray(grid[..., 0]))
        before, after = (np.asarray(shown, int) for shown in (colors.convert("RGB"), ImageCms.applyTransform(colors, transform)))
        if np.abs(before - after).max() <= 1:
            return mode, None
    return mode, transform


def _deep_gray(image, mode, transform):
    """Gray of 16 bits: lcms, through Pillow, takes 8, so its curve is read off 256 levels and interpolated."""
    if mode != "L":
        raise ProfileError(f"it is for {mode}, the image is gray of 16 bits")
    if transform is None:
        return image
    curve = np.asarray(ImageCms.applyTransform(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), transform))[0, :, 1]
    levels = np.asarray(image, np.float32) / 257
    return Image.fromarray(np.interp(levels, np.arange(256), curve.astype(np.float32) * 257).round().astype(np.uint16))


def lab_to_srgb(image):
    """`image` (PIL, mode LAB) as mode RGB in sRGB."""
    return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")


def is_adobe_rgb(exif):
    """Whether EXIF, and no profile, says Adobe RGB: cameras write the interoperability index R03."""
    index = exif.get_ifd(INTEROPERABILITY).get(INDEX, "")
    return str(index).startswith("R03")


def adobe_to_srgb(pixels):
    """`pixels` (H, W, 3) float32 in [0, 1] of Adobe RGB (1998), as sRGB, clipped to [0, 1]."""
    linear = (pixels**ADOBE_GAMMA) @ ADOBE_TO_SRGB.T
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)
