"""Image files that somebody, or something, has damaged: each is read as an image or refused by its name."""

import io
import warnings

import numpy as np
import torch
from comfyui_fluxir.fluxir_core.image.files import WRITTEN, image_bytes, image_size, read_image
from PIL import Image, ImageCms

from .harness import assert_sentence, cases, repeatable

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "LAB", "YCbCr", "F", "I")
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "JPEG2000", "PPM", "TGA", "ICO")


def drawn(draw):
    """A PIL image of any mode, a few pixels large."""
    size, mode = (draw.randint(1, 24), draw.randint(1, 24)), draw.choice(MODES)
    pixels = np.random.default_rng(draw.getrandbits(32)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(pixels[..., 0]))
    if mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    return image.convert(mode)


def written(draw):
    """A file of an image with whatever formats can hold, whole."""
    exif = Image.Exif()
    if draw.maybe():
        exif[0x0112], exif[0x0132] = draw.choice((1, 3, 6, 8, 0, 9, 65535)), "2020:01:01 00:00:00"
        exif[0x8769] = {0x9003: "2020:01:01 00:00:00", 0xA005: {1: "R03"}}
    options = {"exif": exif.tobytes()} if draw.maybe() else {}
    if draw.maybe():
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = drawn(draw)
    if draw.maybe(0.2):
        options |= {"save_all": True, "append_images": [image.copy() for _ in range(draw.randint(1, 3))]}
    for _ in range(20):
        file, kind = io.BytesIO(), draw.choice(FORMATS)
        if kind == "AVIF" and "save_all" in options:
            continue  # Pillow 13 itself can crash there
        try:
            image.save(file, kind, **options)
            return file.getvalue()
        except Exception:  # a format that does not hold this mode
            image = image if draw.maybe() else image.convert("RGB")
    image.convert("RGB").save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def read(path):
    """What reading the file at `path` gives: (LoadedImage, None) or (None, the sentence that refuses it)."""
    try:
        return read_image(path), None
    except ValueError as error:
        return None, str(error)


def check(path, draw):
    before = path.read_bytes()
    image, refusal = read(path)
    assert path.read_bytes() == before
    again, same = read(path)
    if image is None:
        assert again is None and same == refusal
        assert_sentence(refusal, path.name)
        return
    assert torch.equal(image.pixels, again.pixels)
    pixels = image.pixels
    assert pixels.dtype == torch.float32 and pixels.ndim == 3 and len(pixels) == 3 and pixels.isfinite().all()
    assert 0 <= pixels.min() and pixels.max() <= 1
    assert tuple(pixels.shape[1:]) == image_size(path)
    assert image.alpha is None or (image.alpha.shape == (1, *pixels.shape[1:]) and 0 <= image.alpha.min() <= image.alpha.max() <= 1)
    suffix = draw.choice([suffix for suffix in WRITTEN if suffix != ".jxl"])
    try:
        data, remarks = image_bytes(image, suffix)
    except ValueError as error:
        assert_sentence(error, suffix)
        assert max(pixels.shape) > 10_000
        return
    path.with_name(f"copy{suffix}").write_bytes(data)
    copy = read_image(path.with_name(f"copy{suffix}"))
    assert copy.pixels.shape == pixels.shape and all(isinstance(remark, str) and "\n" not in remark for remark in remarks)
    if suffix in (".png", ".tif", ".tiff"):
        assert (copy.pixels - pixels).abs().max() <= 1.01 / 255


def test_an_image_file_is_read_or_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for draw in cases("images", 12):
            data = written(draw)
            data = data if draw.maybe(0.1) else draw.mutated(data)
            path = tmp_path / f"case{draw.number % 8}{draw.choice(('.png', '.jpg', '.tif', '.webp', '.gif', '.avif', ''))}"
            path.write_bytes(data)
            with repeatable(draw):
                check(path, draw)
