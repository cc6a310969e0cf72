"""Labelled images side by side."""

from PIL import Image, ImageDraw, ImageFont

MARGIN = 8


def side_by_side(images, text_size=18):
    """One PIL image of `images` ({label: PIL image}) in a row, each under its label, all brought to the first's height."""
    font = ImageFont.load_default(text_size)
    header = text_size + 2 * MARGIN
    height = next(iter(images.values())).height
    row = [
        (label, image.convert("RGB").resize((max(1, round(image.width * height / image.height)), height)))
        for label, image in images.items()
    ]
    sheet = Image.new("RGB", (sum(p.width + MARGIN for _, p in row) + MARGIN, header + height + MARGIN), "white")
    draw, left = ImageDraw.Draw(sheet), MARGIN
    for label, image in row:
        draw.text((left, MARGIN), label, fill="black", font=font)
        sheet.paste(image, (left, header))
        left += image.width + MARGIN
    return sheet
