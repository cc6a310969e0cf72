"""Weight files: safetensors files that describe themselves, read and written whole."""

import json
import math
import re
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
LONGEST_JSON = 2**23
"""Bytes that are read as JSON: twice as many as the report of a search of 64 images by 25 rounds of 60 candidates has."""
_SIZES = re.compile(r"(?!tie_).*(size|dim|layers|heads|depth|embeddings|channels)")
_WIDTHS = ("hidden_size", "intermediate_size", "vocab_size", "projection_dim")
"""What the configuration of a transformers model calls its sizes, and those of them that are a weight's own."""


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


def read_shapes(path):
    """{name: shape} of the tensors of a safetensors file, from its header alone. Raises WeightFileError on any other file."""
    with _opened(path) as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (it is no dict)


@contextmanager
def _opened(path):
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is cut off, or something else"  # or of types that torch has not
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
    """Raises WeightFileError unless `value`, stored under `key` in the file `name`, holds floating-point numbers, each of them."""
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise WeightFileError(f"{name}: {key} holds {kind} numbers, which are no weights; use a file that is not quantized.")
    # A pickle can say that a few stored numbers are a tensor of any size.
    if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise WeightFileError(f"{name}: {key} is not stored number by number; use a file of plain weights.")


def check_finite(name, key, value):
    """As `check_floating`, and for NaN or infinity."""
    check_floating(name, key, value)
    if not torch.isfinite(value.float()).all():
        raise WeightFileError(f"{name}: {key} holds NaN or infinite values; go back to an earlier checkpoint.")


def take_weights(name, weights, expected, remedy):
    """Takes the weights that a network needs from those of a file.

    Args:
        name: of the file, for the errors.
        weights: {key: tensor} of the file.
        expected: the network's state dict.
        remedy: how the errors end.

    Returns:
        ({key: tensor} for each key of `expected`, LoadReport).

    Raises:
        WeightFileError: one is missing, has another shape than expected, or holds anything but finite floating-point numbers.
    """
    report = LoadReport(
        matched=[key for key in expected if key in weights],
        missing=[key for key in expected if key not in weights],
        unused=[key for key in weights if key not in expected],
    )
    if report.missing:
        raise WeightFileError(f"{name} is incomplete: {report}; {remedy}.")
    for key in report.matched:
        if weights[key].shape != expected[key].shape:
            raise WeightFileError(
                f"{name}: {key} has shape {list(weights[key].shape)} where the others need {list(expected[key].shape)}; {remedy}."
            )
        check_finite(name, key, weights[key])
    return {key: weights[key] for key in report.matched}, report


# JSON that others wrote


def parse_json(text):
    """What the JSON `text` (str or bytes in UTF-8) says.

    Raises ValueError, the part of a sentence, on any other; also where it is too long or nested too deeply, says a thing twice,
    or holds a number that is none: NaN, infinity, and what is beyond a float's or Python's range.
    """
    if len(text) > LONGEST_JSON:
        raise ValueError("it is too long")
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except _Hostile:
        raise
    except (UnicodeDecodeError, ValueError):
        raise ValueError("it is no JSON") from None


class _Hostile(ValueError):
    """JSON that says what no file of ours says."""


def _finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise _Hostile(f"{text[:20]} is no number")
    return value


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Hostile(f"{next(name for name in names if names.count(name) > 1)[:40]!r} stands there twice")
    return found


def read_json(metadata, name):
    """What the JSON text `name` of a file's `metadata` says. Raises ValueError, the part of a sentence, where it says nothing."""
    if name not in metadata:
        raise ValueError(f"{name} is missing")
    try:
        return parse_json(metadata[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def read_json_file(path):
    """What the JSON file at `path` says. Raises ValueError, the part of a sentence, as `parse_json`."""
    try:
        with open(path, "rb") as file:
            return parse_json(file.read(LONGEST_JSON + 1))
    except OSError as error:
        raise ValueError(error.strerror or "it cannot be read") from None


def check_model_config(config, kind, shapes):
    """Raises ValueError, the part of a sentence, unless `config` (of JSON) describes a transformers model of the `kind` that can
    have weights of `shapes` {name: shape}: no size that no model has, no more layers and no wider ones than these."""
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != kind:
        raise ValueError(f"it describes {found if isinstance(found, str) else 'nothing'}")
    numbers = (int(number) for key in shapes for number in re.findall(r"\.(?:layers|blocks)\.(\d{1,6})\.", key))
    layers, widest = max(numbers, default=0) + 1, max((size for shape in shapes.values() for size in shape), default=0)
    open_parts = [config]
    while open_parts:
        for name, value in open_parts.pop().items():
            if isinstance(value, dict):
                open_parts.append(value)
            elif _SIZES.fullmatch(name) and value is not None and not isinstance(value, list):
                most = min(layers, MOST_BLOCKS) if name in ("num_hidden_layers", "depth") else widest if name in _WIDTHS else MOST
                if type(value) is not int or not 0 <= value <= most:
                    raise ValueError(f"{name} is {repr(value)[:40]}")


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
