"""Fidelity to the degraded input: the clean estimate is drawn toward it at every model call, low frequencies first."""

from ..image.pixels import blur
from .rectified_flow import broadcast

SMOOTH = 1.0
"""Standard deviation, in latent pixels, of the Gaussian that parts low frequencies from detail."""


LOW, DETAIL = 0.4, 4.0
"""Variance of the input as an observation of the clean latent's low frequencies and of its detail, at fidelity 0.5. Noise,
blur and JPEG degrade the detail much more. A common factor only moves the slider's scale."""


def fidelity_guidance(clean, degraded, t, fidelity):
    """Draws the clean estimate toward the degraded input.

    In each of two bands they are fused as two estimates of one clean latent: the model's has the error variance
    r^2 = t^2 / (t^2 + (1 - t)^2) of a unit Gaussian seen at time t (as in PGDM, Song et al. 2023), and the input the variance
    s^2 = LOW or DETAIL times (1 - fidelity) / fidelity. Their mean is `clean + w (degraded - clean)` with w = r^2 / (r^2 + s^2):
    early steps follow the input more than late ones, and low frequencies more than detail.

    With one constant w this is FLUX-IR's guidance v + w_g (v - v_LQ) at w_g = -w, which moves the clean estimate by
    w_g (clean - degraded); with w = t^tau it is the restoration guidance of SUPIR (Yu et al. 2024).

    Args:
        clean: the clean estimate, (B, ..., H, W), a latent in the model's space.
        degraded: the input's latent, of the same shape and space.
        t: (B,) in (0, 1].
        fidelity: from 0, which gives `clean`, to 1, which gives `degraded`, both bit for bit.

    Returns:
        (B, ..., H, W).

    Raises:
        ValueError: `fidelity` is outside [0, 1].
    """
    if not 0 <= fidelity <= 1:
        raise ValueError(f"the fidelity is {fidelity}; give 0 to 1.")
    if fidelity == 0:
        return clean
    if fidelity == 1:
        return degraded
    t = broadcast(t, clean)
    model = fidelity * t**2 / (t**2 + (1 - t) ** 2)
    difference = degraded - clean
    low = blur(difference.flatten(1, -3), SMOOTH, round(3 * SMOOTH)).view_as(difference)
    weights = (model / (model + variance * (1 - fidelity)) for variance in (LOW, DETAIL))
    return clean + sum(weight * band for weight, band in zip(weights, (low, difference - low)))
