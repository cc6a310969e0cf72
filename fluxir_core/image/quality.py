"""Full-reference quality measures, from the library piq."""


def quality(images, references):
    """PSNR in dB and SSIM (higher is better), and GMSD (lower is better), of `images` against `references`.

    Both (B, 3, H, W) in [0, 1], at least 32 pixels a side. Returns {"psnr", "ssim", "gmsd"}: (B,) tensors.
    Needs piq (the extra `train`).
    """
    import piq

    measures = {"psnr": piq.psnr, "ssim": piq.ssim, "gmsd": piq.gmsd}
    images, references = images.clamp(0, 1), references.clamp(0, 1)
    return {name: measure(images, references, reduction="none") for name, measure in measures.items()}
