"""Images to and from files, as float tensors: the one place that decides what becomes of odd and broken files."""

import importlib
import io
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from .profiles import ProfileError, adobe_to_srgb, is_adobe_rgb, lab_to_srgb, to_srgb

LOSSY = {"quality": 95}
WRITTEN = {
    ".png": {},
    ".jpg": {**LOSSY, "subsampling": 0},
    ".jpeg": {**LOSSY, "subsampling": 0},
    ".webp": LOSSY,
    ".tif": {},
    ".tiff": {},
    ".bmp": {},
    ".avif": {**LOSSY, "subsampling": "4:4:4"},
    ".jxl": LOSSY,
}
"""The suffixes of image files that are written, and how; color is never kept at half the size where a format leaves the choice."""
SUFFIXES = {*WRITTEN, ".gif", ".jfif"}
"""Of the files that are looked for in a folder of images."""
MOST_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".avif": 32768}
"""Pixels that a side has at most, in formats that set a limit."""
HOLDS_ALPHA = {".png", ".webp", ".tif", ".tiff", ".avif", ".jxl"}
HOLDS_EXIF = {*HOLDS_ALPHA, ".jpg", ".jpeg"}
PLUGINS = {".jxl": ("pillow_jxl", "pillow-jxl-plugin")}
"""Formats that Pillow learns from another package: its module, and what pip calls it."""
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF's tag of how the camera was held, and its values that swap height and width."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
EXIF_KEPT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""Description, make, model, software, date, artist and copyright: what stays true of a restored image."""
EXIF_DROPPED = {0x927C, 0xA001, 0xA002, 0xA003, 0xA005}
"""The maker's own notes, with offsets into the old file; color space, width and height; the interoperability of the color space."""
EXIF_LIMIT = 65_000
"""Bytes: a JPEG file holds no more."""


class Unusable(ValueError):
    """A file that Pillow could read, and why it is not read."""


@dataclass(frozen=True)
class LoadedImage:
    """An image with what its file held beside the colors.

    `pixels` (3, H, W) float32 in [0, 1], sRGB, upright, transparent parts on white. `alpha` (1, H, W) in [0, 1], or None.
    `exif` the bytes of the EXIF data that stays true of a restored image, or None. `dpi` (x, y), or None. `remarks` are
    sentences on what the file held and is not here.
    """

    pixels: torch.Tensor
    alpha: torch.Tensor | None = None
    exif: bytes | None = None
    dpi: tuple | None = None
    remarks: tuple = ()


@contextmanager
def _opened(file, name):
    name = name or file
    try:
        if isinstance(file, (str, Path)) and Path(file).exists() and not Path(file).is_file():
            raise Unusable("it is no file")  # a pipe or a device could be waited for without end
        _plugin(Path(str(name)).suffix.lower())
        with _stream(file) as stream, Image.open(stream) as image:
            yield image
    except FileNotFoundError:
        raise ValueError(f"There is no image at {name}; give the path of a PNG or JPEG file.") from None
    except Exception as error:  # a broken file leads Pillow's decoders to any exception
        raise ValueError(f"{name} cannot be read as an image ({_reason(error)}); give a PNG or JPEG file.") from None


def _stream(file):
    """`file` opened, and closed again at the end, where it is a path: by that, Pillow 13 maps a TIFF and garbles a turned one."""
    return open(file, "rb") if isinstance(file, (str, Path)) else nullcontext(file)


def _reason(error):
    """What an artist can make of Pillow's exception, or of ours."""
    if isinstance(error, (Unusable, Image.DecompressionBombError)):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "it is of no known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is cut off" if "truncated" in str(error) else "it is broken"


def _plugin(suffix):
    """Teaches Pillow the format of `suffix` where that takes a package. Raises ValueError when it is missing."""
    if suffix in PLUGINS and suffix not in Image.registered_extensions():
        module, package = PLUGINS[suffix]
        try:
            importlib.import_module(module)
        except ImportError:
            raise Unusable(f"Pillow reads and writes {suffix} with the package {package}: pip install {package}") from None


def read_image(file, name=None):
    """The LoadedImage in `file`, a path or an open binary file.

    It is turned upright by EXIF (in a PNG, where that stands before the pixels), its colors are converted to sRGB by its ICC
    profile or, where a camera wrote none, by EXIF's mark of Adobe RGB; gray is repeated in three channels, CMYK without a
    profile becomes RGB by Pillow's formula, of several frames the first is taken. 16-bit gray keeps its precision; 16-bit
    color has 8 bits after Pillow. Raises ValueError with one sentence, which calls the file `name`, when it is missing,
    broken or no image, holds floating-point or 32-bit numbers, or has more than Pillow's limit of 179 million pixels.
    """
    remarks = []
    with _opened(file, name) as image:
        frames = getattr(image, "n_frames", 1) or 1
        if frames > 1:
            remarks.append(f"only the first of its {frames} frames is used")
        if _is_deep(image):
            remarks.append("its 16 bits a channel are read as 8" if image.mode[0] != "I" else "its 16 bits a channel become 8")
        profile, dpi = image.info.get("icc_profile"), _dpi(image)
        exif, adobe = _exif_of(image, remarks)
        if (turn := UPRIGHT.get(_orientation(image) or 1)) is not None:
            image = image.transpose(turn)
        if image.mode == "F":
            raise Unusable("its floating-point numbers have no known range")
        alpha = None
        if image.has_transparency_data and not image.mode.startswith("I"):
            image = image.convert("RGBA")
            alpha = np.asarray(image.getchannel("A"), np.float32)[None] / 255
            image = image.convert("RGB")
        if image.mode == "LAB":
            image, profile = lab_to_srgb(image), None
        elif profile:
            try:
                image = to_srgb(image, profile)
            except ProfileError as error:
                remarks.append(f"its color profile cannot be used ({error}), so its colors are taken as sRGB")
        pixels = _numbers(image)
    if adobe and not profile:
        pixels = adobe_to_srgb(pixels)
    pixels = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    if alpha is not None:
        alpha = torch.from_numpy(alpha)
        pixels = alpha * pixels + (1 - alpha)
    return LoadedImage(pixels, alpha, exif, dpi, tuple(remarks))


def load_image(file, name=None):
    """The pixels (3, H, W) of `read_image`."""
    return read_image(file, name).pixels


def image_size(file, name=None):
    """(height, width) that `load_image` would give, from the file's header alone. Raises ValueError as it does."""
    with _opened(file, name) as image:
        width, height = image.size
        return (width, height) if _orientation(image) in TURNED else (height, width)


def _numbers(image):
    """The (H, W, 3) float32 in [0, 1] of a PIL image without alpha."""
    if not image.mode.startswith("I"):
        return np.asarray(image.convert("RGB"), np.float32) / 255
    gray = np.asarray(image, np.float32)  # 16 bits; older releases of Pillow read them as 32
    if gray.size and (gray.min() < 0 or gray.max() > 65535):
        raise Unusable("its 32-bit numbers have no known range")
    return np.repeat(gray[..., None] / 65535, 3, axis=-1)


def _orientation(image):
    try:
        # PngImageFile's own method would decode the image, to look behind it.
        found = Image.Image.getexif(image).get(ORIENTATION)
        return found if isinstance(found, int) and image.format != "TIFF" else None  # Pillow turns TIFF files itself
    except Exception:  # broken data leads Pillow's parser to any exception
        return None


def _dpi(image):
    """(x, y) where the file states a print size that can be meant: TIFF files without one have 1."""
    try:
        stated = tuple(float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return stated if len(stated) == 2 and all(1 < value < 65536 for value in stated) else None


def _is_deep(image):
    """Whether the file holds 16 bits a channel: Pillow's decoders are told so in the first of their arguments."""
    args = image.tile[0][3] if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return image.mode.startswith("I;16") or (isinstance(first, str) and "16" in first)


def _exif_of(image, remarks):
    """(the EXIF data that stays true of a restored image as bytes, or None; whether EXIF says that colors are Adobe RGB)."""
    try:
        found = Image.Image.getexif(image)
        kept = Image.Exif()
        for tag in EXIF_KEPT:
            if tag in found:
                kept[tag] = found[tag]
        for place in (EXIF_IFD, GPS_IFD):
            inside = {tag: value for tag, value in found.get_ifd(place).items() if tag not in EXIF_DROPPED}
            if inside:
                kept[place] = inside
        data = kept.tobytes() if len(kept) else None
        if data and len(data) > EXIF_LIMIT:
            remarks.append("its EXIF data is too large and is left out")
            data = None
        return data, is_adobe_rgb(found)
    except Exception:  # broken data leads Pillow's parser to any exception
        remarks.append("its EXIF data cannot be read and is left out")
        return None, False


def to_pil(image):
    """`image` (3, H, W) in [0, 1] as a PIL image, 8 bits a channel. Raises ValueError where it holds NaN or infinity."""
    if not image.isfinite().all():
        raise ValueError("the image holds NaN or infinity; restore it again with other weights or another precision.")
    return Image.fromarray((image.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy())


def check_suffix(path, size=(1, 1)):
    """Raises ValueError, one sentence, unless an image of `size` (height, width) can be written to a file of the name `path`."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN:
        raise ValueError(f"{path} has no suffix of an image format that is written; use {', '.join(WRITTEN)}.")
    try:
        _plugin(suffix)
    except ValueError as error:
        raise ValueError(f"{path} cannot be written ({error}); use .png, or install it.") from None
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise ValueError(f"{path} cannot be written, because this Pillow has no {suffix[1:].upper()}; use .png.")
    if max(size) > MOST_SIDE.get(suffix, max(size)):
        height, width = size
        raise ValueError(f"{path} holds at most {MOST_SIDE[suffix]} pixels a side, not {width} x {height}; use .png or .tif.")


def image_bytes(image, suffix):
    """(`image`, a LoadedImage, as a file of the format of `suffix`, 8 bits a channel; sentences on what it does not hold).

    Raises ValueError as `check_suffix`, and for NaN.
    """
    check_suffix(f"image{suffix}", image.pixels.shape[1:])
    suffix, remarks, options = suffix.lower(), list(image.remarks), dict(WRITTEN[suffix.lower()])
    drawn = to_pil(image.pixels)
    if image.alpha is not None:
        if suffix in HOLDS_ALPHA:
            drawn = to_pil(_uncovered(image.pixels, image.alpha))
            drawn.putalpha(Image.fromarray((image.alpha[0].clamp(0, 1) * 255).round().byte().cpu().numpy()))
        else:
            remarks.append(f"{suffix} holds no transparency, so it lies on white")
    if image.exif:
        if suffix in HOLDS_EXIF:
            options["exif"] = image.exif
        else:
            remarks.append(f"{suffix} holds no EXIF data, so it is left out")
    if image.dpi:
        options["dpi"] = image.dpi
    file = io.BytesIO()
    drawn.save(file, Image.registered_extensions()[suffix], **options)
    return file.getvalue(), remarks


def _uncovered(pixels, alpha):
    """The colors that lie under white as `pixels` (3, H, W) do, where they cover it by `alpha` (1, H, W)."""
    return torch.where(alpha > 0, (pixels - (1 - alpha)) / alpha.clamp(min=1 / 255), 1.0).clamp(0, 1)


def save_image(image, path):
    """Writes `image` (3, H, W) in [0, 1] to `path`, 8 bits a channel; the format follows the file's suffix."""
    Path(path).write_bytes(image_bytes(LoadedImage(image), Path(path).suffix)[0])


def png_bytes(image):
    """`image` (3, H, W) in [0, 1] as a PNG file of 8 bits a channel."""
    return image_bytes(LoadedImage(image), ".png")[0]
