"""Candidates at a glance: a grid of small pictures with their values, the chosen ones framed."""

import math

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

GAP, TEXT, BACKGROUND = 4, 14, 32


def montage(pictures, labels, chosen=(), width=512):
    """A PIL picture of `pictures` (n, 3, H, W) in [0, 1] in a grid `width` pixels wide, each above its label.

    A label may have several lines. `chosen` holds the indices that get a frame.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell = (width - GAP * (columns + 1)) // columns
    height = max(1, round(cell * pictures.shape[2] / pictures.shape[3]))
    step = height + TEXT * max(label.count("\n") + 1 for label in labels) + GAP
    sheet = Image.new("RGB", (width, GAP + rows * step), (BACKGROUND,) * 3)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT - 3)
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        left, top = GAP + i % columns * (cell + GAP), GAP + i // columns * step
        pixels = (picture.nan_to_num(0).clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        sheet.paste(Image.fromarray(pixels).resize((cell, height)), (left, top))
        if i in chosen:
            draw.rectangle((left - 2, top - 2, left + cell + 1, top + height + 1), outline=(90, 220, 120), width=3)
        draw.multiline_text((left + 2, top + height), label, fill="white", font=font, spacing=3)
    return sheet


def contact_sheet(groups, labels, chosen=(), side=256):
    """As `montage`, for pictures of any size: each of `groups` is a list of pictures (3, H, W), shown beside each other."""
    cells = torch.stack([torch.cat([_framed(picture, side) for picture in group], 2) for group in groups])
    return montage(cells, labels, chosen, GAP + math.ceil(math.sqrt(len(cells))) * (cells.shape[3] + GAP))


def _framed(picture, side):
    """`picture` (3, H, W) in the middle of a dark square (3, side, side)."""
    scale = side / max(picture.shape[1:])
    height, width = (max(1, round(extent * scale)) for extent in picture.shape[1:])
    small = F.interpolate(picture[None].cpu(), (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
    square = torch.full((3, side, side), BACKGROUND / 255)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = small
    return square
