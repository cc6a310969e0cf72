"""LucidFlux's files: the authors' pickle of tensors, or one safetensors file, in which names are joined by dots."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..flux.dimensions import HEAD_DIM, FluxDimensions
from ..flux.pickle_files import read_tensors
from ..flux.prompt_files import prompt_weights
from ..flux.weight_files import LoadReport, WeightFileError, take_weights, write_safetensors
from .model import LucidFlux, LucidFluxConfig

KIND = "lucidflux"
PARTS = ("condition_lq", "condition_ldr", "modulation_lq", "modulation_ldr", "connector")


@dataclass
class LoadedLucidFlux:
    """A file's content: rebuild the network with `LucidFlux(config)` and `load_state_dict(state_dict)`."""

    config: LucidFluxConfig
    state_dict: dict[str, torch.Tensor]
    report: LoadReport


def load_lucidflux(path):
    """Reads LucidFlux's weights, from the authors' file or a safetensors file. Returns a LoadedLucidFlux.

    Raises WeightFileError on a file that is neither, is no LucidFlux, lacks weights, has weights of the wrong shape, or holds
    NaN or infinity. Of a pickle nothing but tensors is read.
    """
    name = Path(path).name
    weights = {_own_name(key): value for key, value in read_tensors(path)[1].items() if key.split(".")[0] in PARTS}
    try:
        config = _config(weights)
        expected = LucidFlux(config, device="meta").state_dict()
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        raise WeightFileError(f"{name} is no LucidFlux file; choose lucidflux.pth of W2GenAI/LucidFlux.") from None
    taken, report = take_weights(name, weights, expected, "download it again")
    return LoadedLucidFlux(config, taken, report)


def save_lucidflux(path, loaded, prompt=None, metadata=None):
    """Writes LucidFlux as one safetensors file, atomically, in the public file's names.

    Args:
        path: of the file.
        loaded: LoadedLucidFlux.
        prompt: StoredPrompt that goes into the file; None for none.
        metadata: str to str; None for none.
    """
    weights = {_public_name(key): value for key, value in loaded.state_dict.items()}
    if prompt is not None:
        weights |= prompt_weights(prompt)
    write_safetensors(path, weights, {"kind": KIND, **(metadata or {})})


def check_lucidflux_base(config, base):
    """Raises WeightFileError unless the branches of `config` fit a base of sizes `base` (FluxDimensions)."""
    fields = ("hidden_size", "num_heads", "context_dim", "vec_dim", "in_channels", "guidance_embed")
    different = [
        f"{field} {getattr(config.dims, field)} instead of {getattr(base, field)}"
        for field in fields
        if getattr(config.dims, field) != getattr(base, field)
    ]
    if different:
        raise WeightFileError(
            f"LucidFlux was made for another base model ({', '.join(different)}); choose FLUX.1-dev or a fine-tune of it."
        )


def _own_name(key):
    return key.removesuffix(".scale") + ".weight" if key.endswith("_norm.scale") else key


def _public_name(key):
    return key.removesuffix(".weight") + ".scale" if key.endswith("_norm.weight") else key


def _config(weights):
    """The LucidFluxConfig that the weights' shapes say. Raises KeyError or ValueError where they are not LucidFlux's."""
    branch = {key.removeprefix("condition_lq."): value for key, value in weights.items() if key.startswith("condition_lq.")}
    sizes = FluxDimensions.from_state_dict(branch)
    if not sizes.double_blocks or sizes.hidden_size % HEAD_DIM:
        raise ValueError("no blocks of FLUX's")
    if f"controlnet_blocks.{sizes.double_blocks}.weight" in branch:
        raise ValueError("a residual without its block")
    connector, features = weights["connector.redux_up.weight"].shape
    return LucidFluxConfig(dims=sizes, features=features, connector=connector)
