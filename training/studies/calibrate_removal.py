"""`python -m comfyui_fluxir.training.studies.calibrate_removal`: what the check of a remover's images accepts and refuses.

Good removers are simple denoisers and sharpeners, identity, and the undistorted photo itself; bad ones ruin the degraded
image in a known way. Photos are those that may be trained on; an image that a ruin leaves as it was is not counted.
"""

from collections import defaultdict

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.nn import functional as F

from ...fluxir_core.degrade.basic import downscale, gaussian_blur, gaussian_noise, jpeg, upscale
from ...fluxir_core.degrade.presets import EVALUATION, degrade_named
from ...fluxir_core.verify.removal_check import removal_check
from ..miniature.scenes import TRAINING_PHOTOS, load_photo

SIZES = (96, 128), (256, 256), (384, 288)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


DEGRADATIONS = {name: lambda photo, name=name: degrade_named(photo, name, 0) for name in EVALUATION} | {
    "none": lambda photo: photo,
    "jpeg 75": lambda photo: jpeg(photo, 75),
    "noise 60": lambda photo: gaussian_noise(photo, 60, seeded()),
    "blur": lambda photo: gaussian_noise(gaussian_blur(photo, 2.5), 3, seeded()),
    "haze": lambda photo: gaussian_noise(photo * 0.5 + 0.4, 5, seeded()),
    "half size": lambda photo: gaussian_noise(downscale(photo, 2), 8, seeded()),
}


def filtered(kind):
    """A remover that is one of PIL's filters."""

    def remove(image, photo):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        return torch.from_numpy(np.array(Image.fromarray(pixels).filter(kind))).permute(2, 0, 1).float() / 255

    return remove


def skimage(name, **options):
    """A remover that is one of scikit-image's denoisers."""

    def remove(image, photo):
        from skimage import restoration

        made = getattr(restoration, name)(image.permute(1, 2, 0).numpy(), channel_axis=-1, **options)
        return torch.from_numpy(np.ascontiguousarray(made)).permute(2, 0, 1).float().clamp(0, 1)

    return remove


def sharper(image, photo):
    return filtered(ImageFilter.UnsharpMask(2, 80, 2))(filtered(ImageFilter.MedianFilter(3))(image, photo), photo)


def bright(image, photo):
    return (image * (0.85 / image.quantile(0.95)).clamp(min=1)).clamp(0, 1)


GOOD = {
    "the photo itself": lambda image, photo: photo,
    "nothing": lambda image, photo: image,
    "total variation 0.05": skimage("denoise_tv_chambolle", weight=0.05),
    "total variation 0.15": skimage("denoise_tv_chambolle", weight=0.15),
    "non-local means": skimage("denoise_nl_means", h=0.08, patch_size=5, patch_distance=6),
    "bilateral": skimage("denoise_bilateral", sigma_color=0.05, sigma_spatial=2),
    "median 3": filtered(ImageFilter.MedianFilter(3)),
    "median 5": filtered(ImageFilter.MedianFilter(5)),
    "half size and back": lambda image, photo: upscale(downscale(image, 2), image.shape[1:]),
    "twice the size": lambda image, photo: upscale(image, [2 * extent for extent in image.shape[1:]]),
    "median 3, sharper": sharper,
    "brighter": bright,
    "gamma 0.7": lambda image, photo: image**0.7,
}


def checkered(pitch):
    def ruin(image, other):
        y, x = (torch.arange(extent) // pitch % 2 for extent in image.shape[1:])
        return (image + 0.4 * ((y[:, None] + x) % 2) - 0.2).clamp(0, 1)

    return ruin


def shuffled(image, other):
    """The image's blocks, a quarter of its shorter side large, in another order."""
    side = min(image.shape[1:]) // 4
    blocks = F.unfold(image[None], side, stride=side)
    size = image.shape[1] // side * side, image.shape[2] // side * side
    moved = blocks[..., torch.randperm(blocks.shape[-1], generator=seeded(1))]
    return upscale(F.fold(moved, size, side, stride=side)[0], image.shape[1:])


def without(rows, columns):
    def ruin(image, other):
        image = image.clone()
        image[:, int(rows * image.shape[1]) :, int(columns * image.shape[2]) :] = 0
        return image

    return ruin


def salted(image, other):
    grains = torch.rand(image.shape[1:], generator=seeded())
    return torch.where(grains < 0.3, (grains < 0.15).float(), image)


BAD = {
    "NaN": lambda image, other: image.index_fill(2, torch.tensor([3]), torch.nan),
    "black": lambda image, other: 0 * image,
    "mean color": lambda image, other: image.mean((1, 2), keepdim=True).expand_as(image),
    "contrast 0.15": lambda image, other: 0.15 * (image - image.mean()) + image.mean(),
    "colors rolled": lambda image, other: image.roll(1, 0),
    "red and blue swapped": lambda image, other: image.flip(0),
    "shuffled": shuffled,
    "another photo": lambda image, other: other,
    "inverted": lambda image, other: 1 - image,
    "upside down": lambda image, other: image.flip(1),
    "half missing": without(0, 0.5),
    "quarter missing": without(0.5, 0.5),
    "checkerboard 1": checkered(1),
    "checkerboard 2": checkered(2),
    "checkerboard 4": checkered(4),
    "checkerboard 8": checkered(8),
    "blurred by 1/30": lambda image, other: gaussian_blur(image, min(image.shape[1:]) / 30),
    "blurred by 1/15": lambda image, other: gaussian_blur(image, min(image.shape[1:]) / 15),
    "two levels": lambda image, other: image.round(),
    "three levels": lambda image, other: (2 * image).round() / 2,
    "clipped": lambda image, other: (8 * (image - image.mean()) + 0.5).clamp(0, 1),
    "overexposed": lambda image, other: (4 * image + 0.4).clamp(0, 1),
    "noise 80": lambda image, other: gaussian_noise(image, 80, seeded(1)),
    "nothing but noise": lambda image, other: torch.rand(image.shape, generator=seeded()),
    "salt and pepper": salted,
    "oversharpened": lambda image, other: (9 * image - 8 * gaussian_blur(image, 2)).clamp(0, 1),
}


def images(size):
    """The training photos' middles, (3, *size) in [0, 1]; of the stereo pair, one."""
    found = []
    for name in TRAINING_PHOTOS:
        if name != "motorcycle_right":
            photo = torch.from_numpy(load_photo(name).copy()).permute(2, 0, 1).float()[None] / 255
            scale = max(wanted / extent for wanted, extent in zip(size, photo.shape[2:]))
            shape = [round(extent * scale) for extent in photo.shape[2:]]
            photo = F.interpolate(photo, shape, mode="bicubic", antialias=True)[0].clamp(0, 1)
            top, left = ((extent - wanted) // 2 for extent, wanted in zip(shape, size))
            found.append(photo[:, top : top + size[0], left : left + size[1]])
    return found


def main():
    accepted, refused = defaultdict(list), defaultdict(list)
    for size in SIZES:
        photos = images(size)
        for index, photo in enumerate(photos):
            for degrade in DEGRADATIONS.values():
                degraded = degrade(photo)
                for name, remove in GOOD.items():
                    (finding,) = removal_check(remove(degraded, photo)[None], degraded[None])
                    accepted[name].append(finding.usable)
                other = upscale(photos[(index + 3) % len(photos)], degraded.shape[1:])
                for name, ruin in BAD.items():
                    (finding,) = removal_check(ruin(degraded, other)[None], degraded[None])
                    if not (ruin(photo, photo) - photo).abs().mean() < 0.02 or name == "another photo":
                        refused[name].append(not finding.usable)
    for title, shares in (("good, accepted", accepted), ("bad, refused", refused)):
        every = [verdict for verdicts in shares.values() for verdict in verdicts]
        print(f"{title}: {100 * np.mean(every):.1f} % of {len(every)}")
        for name, verdicts in shares.items():
            print(f"  {name:24} {100 * np.mean(verdicts):5.1f} % of {len(verdicts)}")


if __name__ == "__main__":
    main()
