"""Weights that their authors published as a pickle, of which nothing but tensors and plain values is read."""

from pathlib import Path

import torch

from .weight_files import WeightFileError, read_safetensors

DEEPEST = 4
"""Dictionaries inside each other in a file of weights."""


def read_pickle(path):
    """What the pickle at `path` holds, by torch's reader of tensors and plain values. Raises WeightFileError on any other."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a hostile file leads torch to
        reason = getattr(error, "strerror", None) or "it is cut off, or holds something else"
        raise WeightFileError(
            f"{Path(path).name} cannot be read as a file of nothing but weights ({reason}); download it again from its authors."
        ) from None


def read_tensors(path):
    """(metadata, tensors by name) of a safetensors file or a pickle; names of nested dictionaries are joined by dots.

    Raises WeightFileError on any other file.
    """
    if Path(path).suffix == ".safetensors":
        return read_safetensors(path)
    content = read_pickle(path)
    metadata = {key: value for key, value in content.items() if isinstance(value, str)} if isinstance(content, dict) else {}
    return metadata, dict(_joined(content, Path(path).name))


def _joined(content, name, prefix="", depth=0):
    if depth > DEEPEST:  # perhaps a dictionary inside itself
        raise WeightFileError(f"{name} is nested too deeply to be a file of weights; download it again from its authors.")
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, dict):
            yield from _joined(value, name, f"{prefix}{key}.", depth + 1)
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
