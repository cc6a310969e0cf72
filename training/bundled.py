"""Small models that the pack ships: each registers what belongs to it, and everything else asks for it by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Bundled(NamedTuple):
    """What a bundled model brings along.

    folder: its files, laid out as `load_models` takes them. title: its name in the metadata of files made with it.
    transformer(): the configuration of its FluxTransformer2DModel. vae(): a diffusers VAE of its kind with random weights.
    embed(prompt): (text (L, context), pooled (vec,)). batches(folder, size, batch, prompts, photos, seed, device, degradation): batches of its
    own training images, `size` pixels a side, encoded by the VAE of the model folder `folder`, with the photographs that are
    fetched to the folder `photos`, or None, degraded by the shares `degradation`; see `fit`.
    """

    folder: Path
    title: str
    transformer: Callable
    vae: Callable
    embed: Callable
    batches: Callable


_MODELS: dict[str, Bundled] = {}


def register(name, model):
    """Makes `model` (Bundled) known by `name`."""
    _MODELS[name] = model


def find(name):
    """The Bundled model of that name or folder, or None."""
    return _MODELS.get(str(name)) or next((own for own in _MODELS.values() if own.folder == Path(name)), None)
