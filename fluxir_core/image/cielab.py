"""sRGB and CIELAB of float images (B, 3, H, W), and colors that sRGB does not have."""

import torch

# IEC 61966-2-1, with white D65 as the sum of each row: grays have a = b = 0.
_RGB_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)
_RGB_TO_XYZ /= _RGB_TO_XYZ.sum(1, keepdim=True)
TO_XYZ, FROM_XYZ = _RGB_TO_XYZ.tolist(), _RGB_TO_XYZ.inverse().tolist()
"""Linear sRGB to XYZ over that of white, and back."""
KNEE = 6 / 29
"""Where CIELAB's cube root becomes a line (CIE 15:2004): its argument there is KNEE^3."""


def to_lab(images):
    """CIELAB over 100 of sRGB `images` in [0, 1]: L in [0, 1], a and b within about 1.1 of zero."""
    bright = ((images.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    t = _mixed(torch.where(images > 0.04045, bright, images / 12.92), TO_XYZ)
    root = t.clamp(min=KNEE**3) ** (1 / 3)
    x, y, z = torch.where(t > KNEE**3, root, t / (3 * KNEE**2) + 4 / 29).unbind(1)
    return torch.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], 1)


def from_lab(lab):
    """sRGB in [0, 1] of `lab`, as `to_lab` gives it; brought into the gamut in linear light, at its luminance."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 0.16) / 1.16
    f = torch.stack([y + a / 5, y, y - b / 2], 1)
    linear = into_gamut(_mixed(torch.where(f > KNEE, f**3, (f - 4 / 29) * (3 * KNEE**2)), FROM_XYZ))
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, linear * 12.92)


def into_gamut(images):
    """`images` in [0, 1]: a color that is not is mixed with the gray of its luma, as little as it takes.

    The channels keep the order and the proportions of their differences, that is, the hue. Other colors stay bit for bit.
    """
    luma = _weighted(images, TO_XYZ[1])[:, None].clamp(0, 1)
    color = images - luma
    highest, lowest = color.amax(1, keepdim=True), color.amin(1, keepdim=True)
    outside = ((images < 0) | (images > 1)).any(1, keepdim=True)
    share = torch.minimum((1 - luma) / highest.clamp(min=1e-9), luma / (-lowest).clamp(min=1e-9))
    return torch.where(outside, luma + share.clamp(max=1) * color, images).clamp(0, 1)


def _mixed(images, matrix):
    """`matrix`, three rows of numbers, times every color; as sums, which no device rounds to half precision."""
    return torch.stack([_weighted(images, row) for row in matrix], 1)


def _weighted(images, row):
    red, green, blue = images.unbind(1)
    return row[0] * red + row[1] * green + row[2] * blue
