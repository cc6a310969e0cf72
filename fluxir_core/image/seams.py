"""How visible the borders of tiles are in an image."""

import torch

STRIP = 8
"""Width in pixels of the strips that are compared across a border: an autoencoder spreads a latent's jump over about 8."""

ALONG = 64
"""Pixels of a border's length that are averaged: a seam goes on in one direction, texture does not."""

AROUND = 32
"""Pixels on either side of a border that it is compared with."""


def seam_score(image, rows=(), columns=(), strip=STRIP, along=ALONG):
    """How much rougher an image is across tile borders than beside them.

    Roughness is the absolute second difference of four neighboring strips across the border. The score is twice the share of
    positions beside the border, up to AROUND pixels away in the same rows, that are less rough than the border, over its whole
    length and all borders: strong edges of the image itself count no more than faint ones. Still they hide a faint seam: best
    is the score of the difference from the image in one piece (`fluxir results tiles`).

    Args:
        image: (3, H, W).
        rows, columns: pixel positions of the borders, each before the pixel of that index.
        strip: width of a strip, in pixels.
        along: length of a strip, in pixels.

    Returns:
        1 where the borders do not show, at most 2.

    Raises:
        ValueError: no border has room for its strips.
    """
    planes = ((image, columns), (image.transpose(-1, -2), rows))
    shares = [share for plane, borders in planes for share in _rougher(plane.double(), sorted(set(borders)), strip, along)]
    if not shares:
        raise ValueError(
            f"seam_score: no border of rows {list(rows)} and columns {list(columns)} can be measured in an image of "
            f"{image.shape[-1]}x{image.shape[-2]}; give borders inside it, with room between them."
        )
    return 2 * float(torch.cat(shares).mean())


def _rougher(plane, borders, strip, along):
    """For each of the vertical `borders` of `plane` (3, H, W): the share of places beside it that it is rougher than, for
    every `along` rows."""
    height = plane.shape[1]
    plane = torch.stack([rows.mean(1) for rows in plane.split(min(along, height), 1)], 1)
    reach = 2 * strip
    last = plane.shape[-1] - reach
    rough = _roughness(plane, strip)
    for border in borders:
        beside = range(max(reach, border - AROUND), min(last, border + AROUND) + 1)
        clear = [p - reach for p in beside if all(abs(p - other) >= reach for other in borders)]
        if clear and reach <= border <= last:
            own, others = rough[:, border - reach, None], rough[:, clear]
            yield ((others < own).double() + (others == own).double() / 2).mean(1)


def _roughness(plane, strip):
    """Second difference of four strips of `strip` columns about each position from 2 strip to W - 2 strip, (H, positions).

    The jump from the second to the third strip, less the mean slope on either side: a gradient is no seam.
    """
    sums = torch.nn.functional.pad(plane.cumsum(-1), (1, 0))
    means = (sums[..., strip:] - sums[..., :-strip]) / strip
    count = plane.shape[-1] - 4 * strip + 1
    first, second, third, fourth = (means[..., i * strip : i * strip + count] for i in range(4))
    return ((third - second) - (second - first + fourth - third) / 2).abs().mean(0)
