"""Images to compare, in one image: labeled side by side, halves of two, or the place where they differ most."""

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from .files import to_pil

MARGIN = 8
VIEWS = ("side by side", "split", "close-up")
CLOSE_UP = 384
"""Pixels a side of an enlarged part."""
WIDEST = 16
"""An image's width over the row's height at most: a wider one is shown smaller."""


def side_by_side(images, text_size=18):
    """One PIL image of `images` ({label: PIL image}) in a row, each under its label, all brought to the first's height.

    An image that would be wider than WIDEST times that height is shown at that width.
    """
    font = ImageFont.load_default(text_size)
    header = text_size + 2 * MARGIN
    height = next(iter(images.values())).height
    row = []
    for label, image in images.items():
        scale = min(height / image.height, WIDEST * height / image.width)
        size = [max(1, round(scale * extent)) for extent in image.size]
        row.append((label, image.convert("RGB").resize(size)))
    sheet = Image.new("RGB", (sum(p.width + MARGIN for _, p in row) + MARGIN, header + height + MARGIN), "white")
    draw, left = ImageDraw.Draw(sheet), MARGIN
    for label, image in row:
        draw.text((left, MARGIN), label, fill="black", font=font)
        sheet.paste(image, (left, header))
        left += image.width + MARGIN
    return sheet


def before_after(before, after, view):
    """A PIL image that shows what has changed from `before` to `after`, (3, H, W) each in [0, 1], in one of VIEWS.

    "split": the left half of the one, the right half of the other. "side by side": both whole. "close-up": both where they differ
    most, enlarged. `before` is brought to the size of `after`.
    """
    height, width = after.shape[1:]
    if before.shape != after.shape:
        before = F.interpolate(before[None], (height, width), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    if view == "split":
        return _split(to_pil(before), to_pil(after))
    if view == "close-up":
        top, left, size = most_different_place(torch.stack([before, after]))
        before, after = (image[:, top : top + size, left : left + size] for image in (before, after))
    images = {"before": to_pil(before), "after": to_pil(after)}
    if view == "close-up":
        images = {label: image.resize((CLOSE_UP, CLOSE_UP), Image.Resampling.BICUBIC) for label, image in images.items()}
    return side_by_side(images)


def most_different_place(images):
    """(top, left, side) in pixels of the square where `images` (n, 3, H, W) differ most, a quarter of the shorter side large."""
    shorter = min(images.shape[-2:])
    side = min(shorter, max(32, shorter // 4))
    spread = images.std(0, unbiased=False).mean(0)[None, None]
    means = F.avg_pool2d(spread, side, stride=max(1, side // 8))
    row, column = divmod(int(means.argmax()), means.shape[-1])
    return row * max(1, side // 8), column * max(1, side // 8), side


def _split(before, after):
    sheet, middle = after.copy(), after.width // 2
    sheet.paste(before.crop((0, 0, middle, before.height)), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(12, after.height // 32))
    draw.line((middle, 0, middle, after.height), fill="white", width=max(1, after.width // 256))
    ends = {"fill": "white", "stroke_fill": "black", "stroke_width": 2, "font": font}
    draw.text((middle - MARGIN, MARGIN), "before", anchor="ra", **ends)
    draw.text((middle + MARGIN, MARGIN), "after", anchor="la", **ends)
    return sheet
