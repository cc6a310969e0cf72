"""Procedural images and photo crops: the miniature's only training data.

A scene is a dead-leaves image (Lee, Mumford and Huang, 2001): opaque shapes with power-law sizes drawn over each other, here
with colors taken from photos, shading and texture, so that edges, flat areas and texture have natural statistics.
Every scene carries the words that describe it, so that the miniature's text path has something to learn.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

TRAINING_PHOTOS = (
    "astronaut",
    "coffee",
    "motorcycle_left",
    "motorcycle_right",
    "camera",
    "retina",
    "ihc",
    "hubble_deep_field",
    "brick",
    "grass",
    "gravel",
    "moon",
    "coins",
)
"""scikit-image's bundled photos that may be trained on; `chelsea` and `rocket` are held out, as is all of scikit-learn."""


def load_photo(name):
    """scikit-image's bundled photo `name` as RGB, uint8, shape (H, W, 3)."""
    from skimage import data

    folder = data.__path__[0] if hasattr(data, "__path__") else data.__file__.rpartition("/")[0]
    for suffix in (".png", ".jpg"):
        try:
            return np.asarray(Image.open(f"{folder}/{name}{suffix}").convert("RGB"))
        except FileNotFoundError:
            continue
    raise FileNotFoundError(f"load_photo: scikit-image bundles no photo '{name}'; use one of {', '.join(TRAINING_PHOTOS)}.")


def photo_crop(photo, size, rng):
    """A random square of `photo` (H, W, 3), brought to (size, size, 3), with flips and color gains."""
    # Every zoom is as likely as the one twice as near: from a fifth more than the photo has to the whole of it.
    side = int(math.exp(rng.uniform(math.log(0.8 * size), math.log(min(photo.shape[:2])))))
    top, left = (rng.integers(0, extent - side + 1) for extent in photo.shape[:2])
    resample = Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC
    crop = Image.fromarray(photo[top : top + side, left : left + side]).resize((size, size), resample)
    pixels = np.asarray(crop, np.float32)
    if rng.random() < 0.25:
        pixels = np.rot90(pixels, rng.integers(4))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if rng.random() < 0.2:
        pixels = turn_hue(pixels, rng)
    if rng.random() < 0.5:
        pixels = pixels * rng.uniform(0.85, 1.15, 3) * rng.uniform(0.7, 1.15)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def turn_hue(colors, rng):
    """`colors` (..., 3) turned about the gray axis by a random angle, their distance from gray scaled by 0.7 to 1.6."""
    angle, scale = rng.uniform(0, 2 * math.pi), rng.uniform(0.7, 1.6)
    gray = colors.mean(-1, keepdims=True)
    chroma = colors - gray
    turned = chroma * math.cos(angle) + (np.roll(chroma, 1, -1) - np.roll(chroma, -1, -1)) * (math.sin(angle) / math.sqrt(3))
    return gray + scale * turned


def scene(size, palette, rng):
    """One dead-leaves scene. `palette` (K, 3) holds colors in [0, 255]. Returns ((size, size, 3) uint8, list of words)."""
    canvas = size * 2  # drawn at twice the size: averaging it down anti-aliases the edges
    large, angular, textured = rng.random(3) < 0.5
    words = ["large" if large else "small", "angular" if angular else "round", "textured" if textured else "smooth"]

    smallest = canvas / (20 if large else 60)
    count = 160 if large else 700
    radius = smallest / np.sqrt(rng.uniform((smallest / (canvas * 0.45)) ** 2, 1, count))  # density ~ r^-3
    center = rng.uniform(-0.05, 1.05, (count, 2)) * canvas
    labels = Image.new("I", (canvas, canvas), 0)
    draw = ImageDraw.Draw(labels)
    for leaf in range(1, count):
        corners = rng.integers(3, 7) if angular else 24
        angle = rng.uniform(0, 2 * math.pi) + np.arange(corners) * 2 * math.pi / corners
        stretch, turn = rng.uniform(0.35, 1), rng.uniform(0, math.pi)
        x, y = np.cos(angle) * radius[leaf], np.sin(angle) * radius[leaf] * stretch
        outline = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], 1)
        draw.polygon([tuple(p) for p in outline + center[leaf]], fill=leaf)
    labels = np.asarray(labels)

    color = palette[rng.integers(0, len(palette), count)].astype(np.float32)
    if rng.random() < 0.25:  # colors that no photo of the set has
        color = rng.uniform(0, 255, (64, 3))[rng.integers(0, rng.integers(3, 65), count)].astype(np.float32)
    elif rng.random() < 0.6:
        color = turn_hue(color, rng)
    slope = rng.normal(0, 0.12 * 255 / canvas * 3, (count, 2)).astype(np.float32)
    grain = np.abs(rng.normal(0, 18 if textured else 3, count)).astype(np.float32)
    yy, xx = np.mgrid[:canvas, :canvas].astype(np.float32)
    shade = slope[labels, 0] * (xx - center[labels, 0]) + slope[labels, 1] * (yy - center[labels, 1])
    shade += grain[labels] * _texture(canvas, rng)
    pixels = color[labels] + shade[..., None]
    pixels = pixels.reshape(size, 2, size, 2, 3).mean((1, 3))

    brightness = rng.uniform(0.45, 1.25)
    words.append("dark" if brightness < 0.8 else "bright")
    pixels *= brightness
    saturation = rng.uniform(0.2, 1.4)
    words.append("muted" if saturation < 0.7 else "colorful")
    gray = pixels.mean(-1, keepdims=True)
    return np.clip(gray + saturation * (pixels - gray), 0, 255).astype(np.uint8), words


def _texture(size, rng):
    """Zero-mean, unit-variance texture (size, size): 1/f noise or an oriented grating, with a random spectrum."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.hypot(fy, fx) + 1 / size
    spectrum = frequency ** -rng.uniform(0.6, 1.6)
    if rng.random() < 0.4:
        turn, pitch = rng.uniform(0, math.pi), rng.uniform(0.02, 0.12)
        along = fx * math.cos(turn) + fy * math.sin(turn)
        across = -fx * math.sin(turn) + fy * math.cos(turn)
        spectrum = np.exp(-(((np.abs(along) - pitch) / 0.01) ** 2) - (across / 0.02) ** 2) + 0.02 * spectrum / spectrum.max()
    phase = rng.standard_normal(spectrum.shape) + 1j * rng.standard_normal(spectrum.shape)
    texture = np.fft.irfft2(phase * spectrum, s=(size, size))
    return (texture / texture.std()).astype(np.float32)


def build_bank(scenes, crops, size=256, seed=0):
    """Makes dead-leaves scenes and photo crops.

    Args:
        scenes: how many scenes.
        crops: how many photo crops.
        size: pixels a side.
        seed: of everything.

    Returns:
        (images (N, size, size, 3) uint8, a list of N lists of words; photo crops have the single word "photo").
    """
    rng = np.random.default_rng(seed)
    photos = [load_photo(name) for name in TRAINING_PHOTOS]
    # Colorful photos count more: seven of the thirteen are gray or nearly so.
    weight = np.array([3 if np.ptp(p.astype(np.int16), axis=-1).mean() > 12 else 1 for p in photos], float)
    images, words = np.empty((scenes + crops, size, size, 3), np.uint8), []
    for i in range(scenes):
        photo = photos[rng.choice(len(photos), p=weight / weight.sum())].reshape(-1, 3)
        palette = photo[rng.integers(0, len(photo), 64)]
        images[i], described = scene(size, palette, rng)
        words.append(described)
    for i in range(scenes, scenes + crops):
        images[i] = photo_crop(photos[rng.choice(len(photos), p=weight / weight.sum())], size, rng)
        words.append(["photo"])
    return images, words
