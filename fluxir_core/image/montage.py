"""Candidates at a glance: a grid of small pictures with their values, the chosen ones framed."""

import math

from PIL import Image, ImageDraw, ImageFont

GAP, TEXT = 4, 14


def montage(pictures, labels, chosen=(), width=512):
    """A PIL picture of `pictures` (n, 3, H, W) in [0, 1] in a grid `width` pixels wide, each under its label.

    `chosen` holds the indices that get a frame.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell = (width - GAP * (columns + 1)) // columns
    height = max(1, round(cell * pictures.shape[2] / pictures.shape[3]))
    step = height + TEXT + GAP
    sheet = Image.new("RGB", (width, GAP + rows * step), (32, 32, 32))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT - 3)
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        left, top = GAP + i % columns * (cell + GAP), GAP + i // columns * step
        pixels = (picture.nan_to_num(0).clamp(0, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        sheet.paste(Image.fromarray(pixels).resize((cell, height)), (left, top))
        if i in chosen:
            draw.rectangle((left - 2, top - 2, left + cell + 1, top + height + 1), outline=(90, 220, 120), width=3)
        draw.text((left + 2, top + height), label, fill="white", font=font)
    return sheet
