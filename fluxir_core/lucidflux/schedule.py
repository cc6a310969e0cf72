"""The sigmas that LucidFlux is sampled on."""

from ..flow.rectified_flow import flux_sigmas

SHORT, LONG = (256, 0.5), (4096, 1.15)
"""FLUX's time shift mu at two lengths of the sequence; linear between and beyond."""


def lucidflux_sigmas(steps, height, width):
    """Sigmas from 1 to 0, (steps + 1,), for an image of `height` x `width` pixels, as the published code makes them.

    It counts (H / 8) (W / 8) / 256 tokens, a 64th of those that FLUX sees, so the shift is about 0.47 at 1024 x 1024. The
    weights were shown with this schedule: it is kept. Raises ValueError when steps < 1.
    """
    (shortest, low), (longest, high) = SHORT, LONG
    tokens = (height // 8) * (width // 8) // 256
    return flux_sigmas(steps, low + (tokens - shortest) * (high - low) / (longest - shortest))
