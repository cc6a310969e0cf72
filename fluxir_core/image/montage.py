"""Candidates at a glance: a grid of small images with their values, the chosen ones framed."""

import math

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from .compare import most_different_place

GAP, TEXT, BACKGROUND = 4, 14, 32
TALLEST, SMALLEST, LARGEST = 2, 8, 8192
"""A cell's height over its width at most, its least width, and a contact sheet's width at most: sheets stay small whatever the
images' number and shape."""

SAME_SHARPNESS, SAME_CLOSENESS = 0.02, 0.1
"""A share, and decibels: differences that nobody sees."""


def montage(images, labels, chosen=(), width=512):
    """Shows images in a grid, each above its label.

    Images taller than TALLEST times their width are shown smaller; of many images the cells are SMALLEST wide, and the grid is as wide as it takes.

    Args:
        images: (n, 3, H, W) in [0, 1].
        labels: n texts, of one or several lines.
        chosen: indices of those that get a frame.
        width: of the grid, in pixels.

    Returns:
        A PIL image.
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    cell = max(SMALLEST, (width - GAP * (columns + 1)) // columns)
    width = max(width, GAP + columns * (cell + GAP))
    aspect = images.shape[2] / images.shape[3]
    height = max(1, round(cell * min(aspect, TALLEST)))
    shown = max(1, round(height / aspect)) if aspect > TALLEST else cell
    step = height + TEXT * max(label.count("\n") + 1 for label in labels) + GAP
    sheet = Image.new("RGB", (width, GAP + rows * step), (BACKGROUND,) * 3)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT - 3)
    for i, (image, label) in enumerate(zip(images, labels)):
        left, top = GAP + i % columns * (cell + GAP), GAP + i // columns * step
        pixels = (image.nan_to_num(0).clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        sheet.paste(Image.fromarray(pixels).resize((shown, height)), (left + (cell - shown) // 2, top))
        if i in chosen:
            draw.rectangle((left - 2, top - 2, left + cell + 1, top + height + 1), outline=(90, 220, 120), width=3)
        draw.multiline_text((left + 2, top + height), label, fill="white", font=font, spacing=3)
    return sheet


def search_montage(images, values, chosen, text, width=512):
    """Shows a search's candidates: the best large, and below it the place where they differ most, of each, with its rank.

    Args:
        images: (n, 3, H, W) in [0, 1].
        values: n numbers, the highest is the best.
        chosen: indices of those that get a frame, at least one; the best of them is shown large.
        text: what stands below the large one.
        width: in pixels.

    Returns:
        A PIL image.
    """
    best = max(chosen, key=lambda i: values[i])
    ranks = [1 + sum(other > value for other in values) for value in values]
    top, left, side = most_different_place(images)
    places = montage(images[:, :, top : top + side, left : left + side], [f"{rank}." for rank in ranks], chosen, width)
    large = montage(images[best : best + 1], [text], (0,), width)
    sheet = Image.new("RGB", (width, large.height + places.height), (BACKGROUND,) * 3)
    sheet.paste(large, (0, 0))
    sheet.paste(places, (0, large.height))
    return sheet


def in_words(images, best, photo=None):
    """How the image `best` of the candidates `images` (n, 3, H, W) differs from them all: "sharper, as close to your photo".

    `photo` (1 or more, 3, h, w) of any size is the degraded photo; without it closeness is left out. A difference of less than
    SAME_SHARPNESS or SAME_CLOSENESS is none.
    """
    sharpness = [_sharpness(image) for image in images]
    ratio = sharpness[best] / max(sum(sharpness) / len(sharpness), 1e-9)
    words = ["sharper" if ratio > 1 + SAME_SHARPNESS else "softer" if ratio < 1 - SAME_SHARPNESS else "as sharp"]
    if photo is not None:
        given = F.interpolate(photo[:1].float(), images.shape[-2:], mode="bicubic", antialias=True, align_corners=False)
        errors = (images.float().clamp(0, 1) - given).square().mean((1, 2, 3)).clamp(min=1e-9)
        nearer = 10 * (errors.mean() / errors[best]).log10().item()  # dB
        closeness = "closer" if nearer > SAME_CLOSENESS else "less close" if nearer < -SAME_CLOSENESS else "as close"
        words.append(f"{closeness} to your photo")
    return ", ".join(words)


def _sharpness(image):
    """The mean step between neighboring pixels of `image` (3, H, W)."""
    return sum(image.float().diff(dim=axis).abs().mean().item() for axis in (1, 2))


def contact_sheet(groups, labels, chosen=(), side=256):
    """Shows groups of images of any size as `montage` does, the images of a group beside each other.

    Args:
        groups: lists of images (3, H, W) in [0, 1], all of one length.
        labels: a text for each group, of one or several lines.
        chosen: indices of the groups that get a frame.
        side: of an image's square, in pixels; less where there are so many that the sheet would be wider than LARGEST.

    Returns:
        A PIL image.
    """
    columns = math.ceil(math.sqrt(len(groups)))
    side = max(SMALLEST, min(side, ((LARGEST - GAP) // columns - GAP) // max(map(len, groups))))
    cells = torch.stack([torch.cat([_framed(image, side) for image in group], 2) for group in groups])
    return montage(cells, labels, chosen, GAP + columns * (cells.shape[3] + GAP))


def _framed(image, side):
    """`image` (3, H, W) in the middle of a dark square (3, side, side)."""
    scale = side / max(image.shape[1:])
    height, width = (max(1, round(extent * scale)) for extent in image.shape[1:])
    small = F.interpolate(image[None].cpu(), (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
    square = torch.full((3, side, side), BACKGROUND / 255)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = small
    return square
