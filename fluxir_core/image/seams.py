"""How visible the borders of tiles are in a picture."""

import torch

BANDS = (1, 4, 8)
"""Widths in pixels of the strips that are compared across a border: an autoencoder spreads a latent's jump over about 8."""

ALONG = 16
"""Pixels of a border's length that are averaged: a seam goes on in one direction, texture does not."""

AROUND = 32
"""Pixels on either side of a border that it is compared with."""


def seam_score(picture, rows=(), columns=()):
    """How much rougher `picture` (3, H, W) is across tile borders than beside them: 1 where they do not show, at most 2.

    `rows`, `columns`: pixel positions of the borders, each before the pixel of that index. Roughness is the absolute second
    difference of four neighbouring strips across the border, ALONG pixels long. The score is twice the share of positions
    beside the border, up to AROUND pixels away in the same rows, that are less rough than the border, over its whole length
    and all borders: strong edges of the picture itself count no more than faint ones. Of the widths in BANDS the largest
    score counts. Raises ValueError when no border has room for its strips.
    """
    planes = ((picture, columns), (picture.transpose(-1, -2), rows))
    scores = []
    for band in BANDS:
        shares = [share for plane, borders in planes for share in _rougher(plane.double(), sorted(set(borders)), band)]
        if shares:
            scores.append(2 * float(torch.cat(shares).mean()))
    if not scores:
        raise ValueError(
            f"seam_score: no border of rows {list(rows)} and columns {list(columns)} can be measured in a picture of "
            f"{picture.shape[-1]}x{picture.shape[-2]}; give borders inside it, with room between them."
        )
    return max(scores)


def _rougher(plane, borders, band):
    """For each of the vertical `borders` of `plane` (3, H, W): the share of places beside it that it is rougher than, for
    every ALONG rows."""
    height = plane.shape[1]
    plane = torch.stack([rows.mean(1) for rows in plane.split(ALONG if height > ALONG else height, 1)], 1)
    reach = 2 * band
    last = plane.shape[-1] - reach
    rough = _roughness(plane, band)
    for border in borders:
        beside = range(max(reach, border - AROUND), min(last, border + AROUND) + 1)
        clear = [p - reach for p in beside if all(abs(p - other) >= reach for other in borders)]
        if clear and reach <= border <= last:
            own, others = rough[:, border - reach, None], rough[:, clear]
            yield ((others < own).double() + (others == own).double() / 2).mean(1)


def _roughness(plane, band):
    """Second difference of four strips of `band` columns about each position from 2 band to W - 2 band, (H, W - 4 band + 1).

    The jump from the second to the third strip, less the mean slope on either side: a gradient is no seam.
    """
    sums = torch.nn.functional.pad(plane.cumsum(-1), (1, 0))
    strips = (sums[..., band:] - sums[..., :-band]) / band
    count = plane.shape[-1] - 4 * band + 1
    first, second, third, fourth = (strips[..., i * band : i * band + count] for i in range(4))
    return ((third - second) - (second - first + fourth - third) / 2).abs().mean(0)
