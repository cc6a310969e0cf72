"""What every verifier is given: images made safe to measure."""

import torch

MINIMUM_SIDE = 64


def normalize(images, minimum=MINIMUM_SIDE):
    """`images` (B, C, H, W), any float type, as ((B, 3, H', W') float32 in [0, 1], finite: (B,) bool).

    Gray becomes three channels, further channels are dropped, sides under `minimum` pixels are continued by mirroring.
    Images that hold NaN or infinity come back black and False in `finite`: they are to be refused, not scored.
    Raises ValueError when the shape is not (B, C, H, W) with C of 1, 3 or 4.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(f"verify: images have the shape {tuple(images.shape)}; give (B, 3, H, W) in [0, 1].")
    images = images.detach().float()[:, :3]
    images = images.expand(-1, 3, -1, -1)
    finite = torch.isfinite(images).flatten(1).all(1)
    images = torch.where(finite[:, None, None, None], images, 0).clamp(0, 1)
    for axis in (2, 3):
        extent = images.shape[axis]
        if extent < minimum:
            images = images.index_select(axis, _mirrored(extent, minimum).to(images.device))
    return images, finite


def _mirrored(extent, length):
    """Indices that walk to and fro over `extent` pixels, `length` of them."""
    period = max(1, 2 * extent - 2)
    steps = torch.arange(length) % period
    return torch.where(steps < extent, steps, period - steps)


def luma(images):
    """The BT.601 luma of `images` (B, 3, H, W): (B, 1, H, W) in the same range."""
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def blur(planes, sigma, radius):
    """`planes` (B, C, H, W) under a Gaussian of `sigma` pixels cut at `radius`, edges replicated."""
    x = torch.arange(-radius, radius + 1, dtype=planes.dtype, device=planes.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(planes.shape[1], 1, 1, -1)
    padded = torch.nn.functional.pad(planes, (radius,) * 4, mode="replicate")
    groups = planes.shape[1]
    rows = torch.nn.functional.conv2d(padded, kernel, groups=groups)
    return torch.nn.functional.conv2d(rows, kernel.transpose(2, 3), groups=groups)
