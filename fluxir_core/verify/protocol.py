"""The one thing a search needs of a verifier."""

from typing import Protocol


class Verifier(Protocol):
    """Scores a batch of images: higher is better, and an image with NaN or infinity scores -inf.

    `name` labels the score in logs. Called with `images` (B, 3, H, W) in [0, 1] and, optionally, `reference`, the
    degraded input as (3, H, W) or (1 or B, 3, H, W), any size; returns (B,) float32 on the images' device.
    """

    name: str

    def __call__(self, images, reference=None): ...
