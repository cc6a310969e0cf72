"""Adapter files: one safetensors file that describes itself."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..flux.weight_files import (
    FORMAT_VERSION,
    LoadReport,
    WeightFileError,
    check_version,
    read_dims,
    read_fields,
    read_json,
    read_safetensors,
    take_weights,
    write_safetensors,
)
from .model import AdapterConfig, FluxIRAdapter

KIND = "fluxir_adapter"


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


def load_adapter(path):
    """Reads an adapter file. Returns a LoadedAdapter whose state dict has exactly the adapter's keys.

    Raises WeightFileError on a file that is not safetensors (a pickle is never opened), is truncated, is of another
    kind or version, lacks weights, has weights of the wrong shape, or holds NaN or infinity.
    """
    name = Path(path).name
    metadata, weights = read_safetensors(path)
    if metadata.get("kind") != KIND:
        raise WeightFileError(
            f"{name} is no FluxIR adapter (its kind is {metadata.get('kind', 'not stated')}); choose a file made by `fluxir`."
        )
    check_version(name, metadata)
    config, expected = _read_config(name, metadata)
    taken, report = take_weights(name, weights, expected, "export it again")
    return LoadedAdapter(config, taken, metadata, report)


def _read_config(name, metadata):
    """The AdapterConfig that the header states, and the (meta) state dict of the adapter it describes."""
    try:
        values = read_json(metadata, "config")
        if isinstance(values, dict) and "dims" in values:
            values["dims"] = read_dims(values["dims"])
        config = read_fields(AdapterConfig, values)
    except ValueError as error:
        raise WeightFileError(f"{name} has an unreadable configuration ({error}); export it again.") from None
    try:
        return config, FluxIRAdapter(config, device="meta").state_dict()
    except (ArithmeticError, RuntimeError, ValueError):
        raise WeightFileError(f"{name} has an unreadable configuration (impossible sizes); export it again.") from None


def check_base(config, base):
    """Raises WeightFileError unless the adapter of `config` was made for a base of sizes `base` (FluxDimensions)."""
    different = [
        f"{field} {ours} instead of {theirs}"
        for (field, ours), theirs in zip(asdict(config.dims).items(), asdict(base).values())
        if ours != theirs
    ]
    if different:
        raise WeightFileError(
            f"The adapter was made for another base model ({', '.join(different)}); choose the adapter made for this one."
        )
