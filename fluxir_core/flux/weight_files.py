"""Weight files: safetensors files that describe themselves, read and written whole."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .dimensions import FluxDimensions

FORMAT_VERSION = "1"


class WeightFileError(ValueError):
    """A weight file that cannot be used, with the reason and the remedy in one sentence."""


@dataclass
class LoadReport:
    """Keys of a loaded file: used by the adapter, expected but absent, and present but unknown."""

    matched: list[str]
    missing: list[str]
    unused: list[str]

    def __str__(self):
        text = f"{len(self.matched)} weights matched"
        for name, keys in (("missing", self.missing), ("unused", self.unused)):
            text += f", {len(keys)} {name}"
            if keys:
                text += f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        return text


def write_safetensors(path, weights, metadata):
    """Writes `weights` (name to tensor) and `metadata` (str to str) to `path`, atomically and with a new file's usual rights."""
    weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    partial = Path(path).with_suffix(".partial")
    partial.touch()
    usual = partial.stat().st_mode
    try:
        save_file(weights, partial, metadata)
        partial.chmod(usual)  # safetensors' own are the owner's alone; ComfyUI may run as somebody else
        partial.replace(path)
    except SafetensorError as error:  # such as a full disk
        partial.unlink(missing_ok=True)
        raise OSError(str(error)) from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_safetensors(path):
    """Metadata and weights of a safetensors file. Raises WeightFileError on any other file; never opens a pickle."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise WeightFileError(
            f"{Path(path).name} cannot be read as a safetensors file ({error}); download it again, or export it with `fluxir`."
        ) from None


def check_version(name, metadata):
    """Raises WeightFileError unless the file `name` has the format version that this pack reads."""
    if metadata.get("format_version") != FORMAT_VERSION:
        raise WeightFileError(
            f"{name} has format version {metadata.get('format_version')}, but this pack reads {FORMAT_VERSION}; update the pack."
        )


def check_finite(name, key, value):
    """Raises WeightFileError when `value`, stored under `key` in the file `name`, holds NaN or infinity."""
    if not torch.isfinite(value.float()).all():
        raise WeightFileError(f"{name}: {key} holds NaN or infinite values; go back to an earlier checkpoint.")


def read_dims(fields):
    """FluxDimensions from what JSON makes of them. Raises KeyError or TypeError on fields that are not theirs."""
    return FluxDimensions(**{**fields, "axes_dim": tuple(fields["axes_dim"])})
