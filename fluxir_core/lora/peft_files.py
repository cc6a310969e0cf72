"""LoRAs as peft saves them, for a network of any kind: `adapter_model.safetensors` beside `adapter_config.json`."""

import re
from pathlib import Path
from typing import NamedTuple

import torch

from ..flux.weight_files import WeightFileError, check_finite, read_json_file, read_safetensors
from .peft_scales import PeftScales

CONFIG = "adapter_config.json"

_KEY = re.compile(r"(?:base_model\.model\.)*(.+)\.lora_(A|B)(?:\.\w+)?\.weight")


class PeftLayer(NamedTuple):
    """One module's LoRA: it adds `scale` times `up` `down` to the weight. `down` (rank, inputs), `up` (outputs, rank), of a
    convolution with its kernel's sides behind (those of `up` are 1)."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def delta(self, weight):
        """What is added to `weight`, in its shape and float32."""
        return self.scale * (self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(weight.shape)


def load_peft(path):
    """{module: PeftLayer} of a safetensors file of peft's, modules named as in the network that it was trained on.

    Their scale, alpha / rank, is in the adapter_config.json beside the file, and 1 where there is none. Raises WeightFileError
    on another file, on one of another kind (DoRA, with biases), on half a layer, and on NaN or infinity.
    """
    name = Path(path).name
    _, weights = read_safetensors(path)
    scales = _read_scales(path)
    parts = {}
    for key, value in weights.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise WeightFileError(f"{name} holds {key}, which is no part of a plain LoRA of peft's; choose another file.")
        check_finite(name, key, value)
        parts.setdefault(match[1], {})[match[2]] = value
    if not parts:
        raise WeightFileError(f"{name} holds no LoRA; choose adapter_model.safetensors of a LoRA that peft saved.")
    for module, pair in parts.items():
        if len(pair) < 2 or not 2 <= pair["A"].ndim == pair["B"].ndim or not 0 < pair["A"].shape[0] == pair["B"].shape[1]:
            raise WeightFileError(f"{name}: the LoRA of {module} is incomplete or does not fit itself; download it again.")
    return {module: PeftLayer(pair["A"], pair["B"], scales.of(module, len(pair["A"]))) for module, pair in parts.items()}


def rename(layers, names, path, network):
    """Gives a file's layers the names of another network.

    Args:
        layers: {module: layer}.
        names: `names(module)` gives the network's name for it, or None.
        path: of the file, for the error.
        network: what the network is called in the error.

    Returns:
        {name: layer}.

    Raises:
        WeightFileError: a module has no name in the network.
    """
    renamed = {names(module): layer for module, layer in layers.items()}
    if None in renamed:
        unknown = next(module for module in layers if names(module) is None)
        raise WeightFileError(f"{Path(path).name} changes {unknown}, which is no part of {network}; choose the LoRA made for it.")
    return renamed


def merge(state_dict, layers, name):
    """`state_dict` with the LoRA `layers` added to its weights. Raises WeightFileError, in the name of the file `name`, when one
    has no weight there, or another shape."""
    merged = dict(state_dict)
    for module, layer in layers.items():
        weight = merged.get(f"{module}.weight")
        if weight is None or (len(layer.up), layer.down[0].numel()) != (len(weight), weight[0].numel()):
            raise WeightFileError(f"{name} changes {module}, which is of another size here; choose the LoRA made for this network.")
        merged[f"{module}.weight"] = (weight.float() + layer.delta(weight)).to(weight.dtype)
    return merged


def _read_scales(path):
    beside = Path(path).with_name(CONFIG)
    try:
        config = read_json_file(beside) if beside.exists() else {}
        scales = PeftScales(config)
    except ValueError as error:
        raise WeightFileError(f"{beside.name} beside {Path(path).name} cannot be read ({error}); download it again.") from None
    kind = "DoRA" if config.get("use_dora") else config.get("peft_type", "LORA")
    if kind != "LORA":
        raise WeightFileError(f"{Path(path).name} is a {str(kind)[:40]}; choose a plain LoRA.")
    return scales
