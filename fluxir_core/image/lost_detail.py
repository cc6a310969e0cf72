"""Giving back what the autoencoder loses: detail of the input that is neither noise nor hidden by darkness."""

from .noise import noise_power
from .pixels import blur, luma

NOISE = 2.0
"""Residual energy of so many times the measured noise's is taken for noise."""

DARK = 0.12
"""A change of brightness, in [0, 1], at which the input's detail no longer fits the restored image."""


def give_back_detail(restored, degraded, decoded, strength=1.0):
    """Adds what an autoencoder lost: `restored` + w (`degraded` - `decoded`), with a weight w for each place.

    The difference is what no restoration can hold: fine texture, small text, the grain of a face, and noise. w is `strength`
    times Wiener's share of the difference that is not the input's noise (`noise_power`), times how little the restoration has
    changed the brightness: dark detail says nothing of the bright image.

    Args:
        restored: (B, 3, H, W) in [0, 1].
        degraded: the input, (B, 3, H, W) in [0, 1].
        decoded: `degraded` through the autoencoder, (B, 3, H, W) in [0, 1].
        strength: 0 gives `restored` itself, 1 the whole weight.

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: the shapes differ or are others, or an image holds NaN or infinity.
    """
    for name, given in (("restored", restored), ("degraded", degraded), ("decoded", decoded)):
        if given.shape != restored.shape or given.ndim != 4 or given.shape[1] != 3:
            raise ValueError(f"the {name} images have the shape {tuple(given.shape)}, the restored {tuple(restored.shape)}.")
        if not given.isfinite().all():
            raise ValueError(f"the {name} images hold NaN or infinity; give images without.")
    if strength == 0:
        return restored
    lost = degraded - decoded
    energy = blur(lost.square().mean(1, keepdim=True), 2.0, 6)
    noise = NOISE * noise_power(degraded)[:, None, None, None]
    signal = ((energy - noise) / energy.clamp(min=1e-8)).clamp(0, 1)
    change = blur(luma(restored) - luma(degraded), 4.0, 12).abs()
    kept = (1 - change / DARK).clamp(0, 1)
    return (restored + strength * signal * kept * lost).clamp(0, 1).to(restored.dtype)
