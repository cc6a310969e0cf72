"""Consistency with the degraded input: a limit to keep, never a quantity to raise.

What a restoration is there to change costs nothing: exposure, as far as the input leaves room for it, and the input's
own noise. Structure that the input does not have, and color or contrast that it leaves no room for, cost.
"""

import torch
from torch.nn import functional as F

from ..image.noise import noise_power
from ..image.pixels import normalize

FACTOR = 4
"""Compared at this share of the size, where degradations hardly reach and invented detail does not count."""
ENOUGH, SCALE = 33.0, 4.0
"""dB above which nothing is gained, and dB a unit of the hinge."""
SLACK, INAUDIBLE = 10**0.05, 1e-4
"""The measured noise power counts 0.5 dB more than it is; under 40 dB below white it counts nothing."""
WHITE, DARKEST, MARGIN = 0.9, 1 / 16, 0.02
"""An image whose brightest hundredth is under WHITE is underexposed, by at most 1 / DARKEST; tolerance of the limits."""


def reference_batch(reference, images):
    """The degraded input `reference` as a batch beside `images` (B, 3, H, W): ((B or 1, 3, h, w), finite)."""
    reference = reference.to(images.device)
    reference = reference[None] if reference.ndim == 3 else reference
    if len(reference) not in (1, len(images)):
        raise ValueError(f"verify: {len(reference)} references for {len(images)} images; give one, or one each.")
    return normalize(reference, minimum=1)


def missing_light(white):
    """How many times brighter the image could be whose brightest hundredth is at `white` (any shape): 1 to 16."""
    return (WHITE / white.clamp(min=DARKEST)).clamp(min=1)


def _compare(images, reference):
    """(PSNR, the limit it should reach), in dB: (B,), (B or 1,)."""
    images, finite = normalize(images, minimum=1)
    reference, whole = reference_batch(reference, images)
    size = [max(1, extent // FACTOR) for extent in images.shape[2:]]
    given = F.interpolate(reference, size, mode="area").flatten(2)
    found = F.interpolate(images, size, mode="area").flatten(2)
    averaged = max(1.0, reference.shape[2] * reference.shape[3] / (size[0] * size[1]))
    noise = noise_power(reference, averaged)

    # The input's range without its noise, one for all channels: what is left of [0, 1] is room for exposure.
    spread = 2 * noise.sqrt()
    black = given.flatten(1).quantile(0.01, dim=1) + spread
    white = (given.flatten(1).quantile(0.99, dim=1) - spread).clamp(min=DARKEST)
    room = (1 / torch.maximum(white - black, white / 2)).clamp(1.1, 1 / DARKEST)[:, None]
    missing = missing_light(white)

    # image = gain * input + offset, channel by channel; regressing the input, which is noisy, keeps the gain unbiased.
    middle, mean = given.mean(2), found.mean(2)
    centered = found - mean[..., None]
    slope = ((given - middle[..., None]) * centered).mean(2) / (centered.square().mean(2) + 1e-6)
    gain = torch.minimum((1 / slope.clamp(min=1e-6)).clamp(min=0.9), room)
    lowest, highest = -gain * black[:, None] - MARGIN, 1 - gain * white[:, None] + MARGIN
    offset = torch.minimum((mean - gain * middle), highest).maximum(lowest)

    # In the input's range, carried to full exposure: a darker restoration is as wrong as a brighter one.
    error = given - (found - offset[..., None]) / gain[..., None]
    psnr = -10 * (error.square().mean((1, 2)) * missing.square()).clamp(min=1e-8).log10()
    # Restoring a dark input amplifies what little it shows: the limit falls by half the decibels of light that is missing.
    noise = (noise * missing.square() - INAUDIBLE).clamp(min=0)
    limit = -10 * (SLACK * noise + 10 ** (-ENOUGH / 10) * missing).log10()
    return torch.where(finite & whole, psnr, -torch.inf), limit


def downsampled_psnr(images, reference):
    """PSNR in dB, at most 80, of `images` to `reference` at a quarter of the images' size, exposure matched: (B,).

    Matched by a gain (at least 0.9) and an offset for each channel that keep the reference's range inside [0, 1]: a well
    exposed reference leaves next to none. For a dark one, errors are those of the fully exposed image.
    """
    return _compare(images, reference)[0]


class Consistency:
    """Minus the hinge max(0, limit - PSNR) / 4 at a quarter of the size; 0 for all images close to the input.

    The limit is 33 dB for a clean, well exposed input, and lower by what its noise and its darkness keep out of reach.
    """

    name = "consistency"

    def __call__(self, images, reference=None):
        if reference is None:
            raise ValueError("Consistency: no reference was given; connect the degraded input.")
        psnr, limit = _compare(images, reference)
        return -((limit - psnr).clamp(min=0) / SCALE)
