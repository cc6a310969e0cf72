"""Adapter files: one safetensors file that describes itself."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .dimensions import FluxDimensions
from .model import AdapterConfig, FluxIRAdapter

FORMAT_VERSION = "1"
KIND = "fluxir_adapter"


class AdapterFileError(ValueError):
    """An adapter file that cannot be used, with the reason and the remedy in one sentence."""


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


@dataclass
class LoadedAdapter:
    """An adapter file's content: rebuild it with `FluxIRAdapter(config)` and `load_state_dict(state_dict)`."""

    config: AdapterConfig
    state_dict: dict[str, torch.Tensor]
    metadata: dict[str, str]
    report: LoadReport


def save_adapter(path, adapter, metadata):
    """Writes `adapter` (FluxIRAdapter) with its configuration and `metadata` (str to str) to `path`, atomically."""
    described = {
        **metadata,
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "config": json.dumps(asdict(adapter.config)),
    }
    write_safetensors(path, adapter.state_dict(), described)


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
    """Metadata and weights of a safetensors file. Raises AdapterFileError on any other file; never opens a pickle."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(
            f"{Path(path).name} cannot be read as a safetensors file ({error}); download it again, or export it with `fluxir`."
        ) from None


def load_adapter(path):
    """Reads an adapter file. Returns a LoadedAdapter whose state dict has exactly the adapter's keys.

    Raises AdapterFileError on a file that is not safetensors (a pickle is never opened), is truncated, is of another
    kind or version, lacks weights, has weights of the wrong shape, or holds NaN or infinity.
    """
    name = Path(path).name
    metadata, weights = read_safetensors(path)
    if metadata.get("kind") != KIND:
        raise AdapterFileError(
            f"{name} is no FluxIR adapter (its kind is {metadata.get('kind', 'not stated')}); choose a file made by `fluxir`."
        )
    check_version(name, metadata)
    config, expected = _read_config(name, metadata)
    report = LoadReport(
        matched=[key for key in expected if key in weights],
        missing=[key for key in expected if key not in weights],
        unused=[key for key in weights if key not in expected],
    )
    if report.missing:
        raise AdapterFileError(f"{name} is incomplete: {report}; export it again.")
    for key in report.matched:
        if weights[key].shape != expected[key].shape:
            raise AdapterFileError(
                f"{name}: {key} has shape {list(weights[key].shape)}, but its configuration says "
                f"{list(expected[key].shape)}; export it again."
            )
        check_finite(name, key, weights[key])
    return LoadedAdapter(config, {key: weights[key] for key in report.matched}, metadata, report)


def check_version(name, metadata):
    """Raises AdapterFileError unless the file `name` has the format version that this pack reads."""
    if metadata.get("format_version") != FORMAT_VERSION:
        raise AdapterFileError(
            f"{name} has format version {metadata.get('format_version')}, but this pack reads {FORMAT_VERSION}; update the pack."
        )


def check_finite(name, key, value):
    """Raises AdapterFileError when `value`, stored under `key` in the file `name`, holds NaN or infinity."""
    if not torch.isfinite(value.float()).all():
        raise AdapterFileError(f"{name}: {key} holds NaN or infinite values; go back to an earlier checkpoint.")


def read_dims(fields):
    """FluxDimensions from what JSON makes of them. Raises KeyError or TypeError on fields that are not theirs."""
    return FluxDimensions(**{**fields, "axes_dim": tuple(fields["axes_dim"])})


def _read_config(name, metadata):
    """The AdapterConfig that the header states, and the (meta) state dict of the adapter it describes."""
    try:
        fields = json.loads(metadata["config"])
        config = AdapterConfig(dims=read_dims(fields.pop("dims")), **fields)
        return config, FluxIRAdapter(config, device="meta").state_dict()
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise AdapterFileError(f"{name} has an unreadable configuration ({error}); export it again.") from None


def check_base(config, base):
    """Raises AdapterFileError unless the adapter of `config` was made for a base of sizes `base` (FluxDimensions)."""
    different = [
        f"{field} {ours} instead of {theirs}"
        for (field, ours), theirs in zip(asdict(config.dims).items(), asdict(base).values())
        if ours != theirs
    ]
    if different:
        raise AdapterFileError(
            f"The adapter was made for another base model ({', '.join(different)}); choose the adapter made for this one."
        )
