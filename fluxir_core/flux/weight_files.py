"""Weight files: safetensors files that describe themselves, read and written whole."""

import json
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .dimensions import FluxDimensions

FORMAT_VERSION = "1"
MOST, MOST_BLOCKS = 1_000_000, 1000
"""Of whatever a file can say that a model has, and of its blocks."""


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
    with _opened(path) as file:
        return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)


def read_metadata(path):
    """The metadata of a safetensors file, from its header alone. Raises WeightFileError on any other file."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path):
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or "it is cut off, or something else"
        raise WeightFileError(
            f"{Path(path).name} cannot be read as a safetensors file ({reason}); download it again, or export it with `fluxir`."
        ) from None


def check_version(name, metadata):
    """Raises WeightFileError unless the file `name` has the format version that this pack reads."""
    if metadata.get("format_version") != FORMAT_VERSION:
        raise WeightFileError(
            f"{name} has format version {metadata.get('format_version')}, but this pack reads {FORMAT_VERSION}; update the pack."
        )


def check_floating(name, key, value):
    """Raises WeightFileError unless `value`, stored under `key` in the file `name`, holds floating-point numbers."""
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise WeightFileError(f"{name}: {key} holds {kind} numbers, which are no weights; use a file that is not quantized.")


def check_finite(name, key, value):
    """As `check_floating`, and for NaN or infinity."""
    check_floating(name, key, value)
    if not torch.isfinite(value.float()).all():
        raise WeightFileError(f"{name}: {key} holds NaN or infinite values; go back to an earlier checkpoint.")


def read_json(metadata, name):
    """What the JSON text `name` of a file's `metadata` says. Raises ValueError, the part of a sentence, where it says nothing."""
    try:
        return json.loads(metadata[name])
    except KeyError:
        raise ValueError(f"{name} is missing") from None
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{name} is no JSON") from None


def read_fields(cls, values):
    """The dataclass `cls` of plain values from what JSON makes of it; lists become tuples, nothing else is converted.

    Raises ValueError, the part of a sentence, where a field is unknown or missing, of another type, or a number that no model
    has: beyond MOST_BLOCKS blocks, or MOST of anything.
    """
    kinds, known = get_type_hints(cls), {each.name: each for each in fields(cls)}
    if not isinstance(values, dict) or values.keys() - known.keys():
        raise ValueError(f"it does not describe {cls.__name__}")
    for name, value in values.items():
        if not _can_be(kinds[name], value, MOST_BLOCKS if name.endswith("_blocks") else MOST):
            raise ValueError(f"{name} is {repr(value)[:40]}")
    lacking = [name for name, each in known.items() if name not in values and each.default is MISSING]
    if lacking:
        raise ValueError(f"{lacking[0]} is missing")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _can_be(kind, value, most):
    """Whether `value`, of JSON, can be of the type `kind`: bool, int, float, str, a tuple of numbers, None or a dataclass."""
    if get_origin(kind) is tuple:
        return isinstance(value, (list, tuple)) and all(_can_be(get_args(kind)[0], each, most) for each in value)
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool) or value is None or isinstance(value, str) or is_dataclass(value):
        return type(value) in kinds
    number = (isinstance(value, int) and int in kinds) or (isinstance(value, (int, float)) and float in kinds)
    return number and 0 <= value <= most


def read_dims(values):
    """FluxDimensions from what JSON makes of them. Raises ValueError as `read_fields`."""
    return read_fields(FluxDimensions, values)
