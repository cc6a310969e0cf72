"""Labelled pictures side by side."""

from PIL import Image, ImageDraw, ImageFont

MARGIN = 8


def side_by_side(pictures, text_size=18):
    """One PIL picture of `pictures` ({label: PIL picture}) in a row, each under its label, all brought to the first's height."""
    font = ImageFont.load_default(text_size)
    header = text_size + 2 * MARGIN
    height = next(iter(pictures.values())).height
    row = [
        (label, picture.convert("RGB").resize((max(1, round(picture.width * height / picture.height)), height)))
        for label, picture in pictures.items()
    ]
    sheet = Image.new("RGB", (sum(p.width + MARGIN for _, p in row) + MARGIN, header + height + MARGIN), "white")
    draw, left = ImageDraw.Draw(sheet), MARGIN
    for label, picture in row:
        draw.text((left, MARGIN), label, fill="black", font=font)
        sheet.paste(picture, (left, header))
        left += picture.width + MARGIN
    return sheet
