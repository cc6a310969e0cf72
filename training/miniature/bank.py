"""The miniature's training bank: pictures, their words, their degraded versions, drawn and encoded once and kept in a folder."""

import hashlib
import logging

import torch

from ...fluxir_core.degrade.presets import degrade_random
from ..engine.checked_files import read_or_none, write_checked
from .autoencoder import LATENT_CHANNELS
from .latents import LatentBank, encode_images
from .scenes import build_bank


def draw_bank(plan, work):
    """Images (N, 3, H, W) uint8 and their words, made once for each bank of a plan and kept in `work`."""
    path = work / f"bank-{_drawn_by(plan)}.pt"
    saved = read_or_none(path)
    if saved is None:
        logging.info("drawing %d scenes and cropping %d photos", plan.scenes, plan.crops)
        images, words = build_bank(plan.scenes, plan.crops, plan.size, plan.seed)
        saved = {"images": torch.from_numpy(images), "words": words}
        write_checked(path, saved)
    return saved["images"].permute(0, 3, 1, 2), saved["words"]


def degraded_versions(image, plan, index):
    """`plan.versions` random degradations of `image` (3, H, W) uint8, the `index`-th of the bank; the same every time."""
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + index)
    versions = [degrade_random(image.float() / 255, generator) for _ in range(plan.versions)]
    return (torch.stack(versions) * 255).round().byte()


def encode_bank(plan, work, autoencoder, images, words, versions=degraded_versions, name="latents"):
    """The LatentBank of `images` (N, 3, H, W) uint8 and `plan.versions` degradations of each, made once and kept in `work`.

    `versions(image, plan, index)` makes them; the file has `name` and the fingerprints of bank and autoencoder.
    """
    path = work / f"{name}-{_drawn_by(plan)}-{plan.versions}-{fingerprint(autoencoder)}.pt"
    saved = read_or_none(path)
    if saved is None:
        logging.info("degrading and encoding %d pictures", len(images))
        side = plan.size // 8
        degraded = torch.empty(len(images), plan.versions, LATENT_CHANNELS, side, side, dtype=torch.half)
        for i, image in enumerate(images):
            degraded[i] = encode_images(autoencoder, versions(image, plan, i))
        saved = {"clean": encode_images(autoencoder, images), "degraded": degraded}
        write_checked(path, saved)
    return LatentBank(saved["clean"], saved["degraded"], words)


def _drawn_by(plan):
    """A name for what of `plan` the drawn pictures depend on."""
    return hashlib.sha256(repr((plan.scenes, plan.crops, plan.size, plan.seed)).encode()).hexdigest()[:8]


def fingerprint(module):
    """A name for the weights of `module`."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
