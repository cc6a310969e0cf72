"""The miniature: a FLUX of 6.8 M parameters with its VAE and adapter, trained on data of its own."""

from pathlib import Path

from ..bundled import Bundled, register

FOLDER = Path(__file__).resolve().parents[2] / "models" / "miniature"


def _transformer():
    from .train_base import MINI_FLUX

    return MINI_FLUX


def _vae():
    from diffusers import AutoencoderTiny

    from .autoencoder import LATENT_CHANNELS

    return AutoencoderTiny(latent_channels=LATENT_CHANNELS)


def _embed(prompt):
    from .text import encode_words

    return encode_words(prompt.split())


def _batches(folder, size, batch, prompts, photos, seed, device, degradation):
    from functools import partial

    from ...fluxir_core.degrade.presets import degrade_by_shares
    from .batches import MiniatureBatches

    degrade = partial(degrade_by_shares, degradation)
    return MiniatureBatches.for_model(folder, size, batch, prompts, photos, seed, device, degrade=degrade)


register("miniature", Bundled(FOLDER, "mini-FLUX", _transformer, _vae, _embed, _batches))
