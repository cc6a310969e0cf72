"""What a recipe trains: made new or opened from a file, on its host, and described so that its file can be written."""

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ...fluxir_core.adapter.checkpoint import KIND as FLUXIR
from ...fluxir_core.adapter.checkpoint import check_base, load_adapter, save_adapter
from ...fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from ...fluxir_core.flux.weight_files import read_metadata
from ...fluxir_core.lora.few_steps import save_few_steps
from ...fluxir_core.lora.files import FEW_STEPS, PLAIN, check_lora_base, load_lora, save_layers, save_lora
from ...fluxir_core.lora.lora import LoRA, linear_sizes, lora_targets
from ...fluxir_core.ummf.mode import ConditionMode
from ..diffusers_host.fluxir_host import FluxIRHost
from ..diffusers_host.lora_host import LoRAHost
from ..diffusers_host.model_folder import model_folder, only_file
from ..diffusers_host.transformer import flux_dimensions
from ..diffusers_host.ummf_host import UMMFHost
from ..engine.processes import whole

LAST = ("norm_out.linear", "proj_out")
"""The image stream's last layers, which a LoRA on the base changes as well: they decide on the tone."""


class Trained(NamedTuple):
    """`host` runs the model, `adapter` is the module of it that is trained. `form` (plain values) says how to build the latter
    anew (`rebuilt`) and what file it makes (`write_file`)."""

    host: Any
    adapter: nn.Module
    form: dict


class Start(NamedTuple):
    """An adapter or UMMF LoRA from the file `path`: the module and its form; `mode` is a LoRA's, None for an adapter. `digest` names
    the file's weights, whatever else it says."""

    path: Path
    module: nn.Module
    form: dict
    mode: ConditionMode | None
    digest: str


def start_path(config):
    """The file that a run of `config` (TrainConfig) starts from: its `start`, or the adapter in the base's folder."""
    return Path(config.start) if config.start else only_file(model_folder(config.base.folder) / "fluxir_adapters")


def open_start(path, dims=None):
    """The Start in the safetensors file `path`, float32, for a base of `dims` (FluxDimensions), or of those that the file states.

    Raises ValueError, in one sentence, on a file that is neither adapter nor LoRA, or is for another base.
    """
    path = Path(path)
    check_start(path)
    if read_metadata(path).get("kind") == FLUXIR:
        file = load_adapter(path)
        check_base(file.config, dims or file.config.dims)
        adapter = FluxIRAdapter(file.config)
        form, mode = _adapter_form(adapter), None
    else:
        file = load_lora(path)
        if (dims := dims or file.dims) is None:
            raise ValueError(f"start: {path} does not say for which model it is; use one that `fluxir train` has written.")
        check_lora_base(file, dims)
        adapter, mode = LoRA(file.shapes, dims), file.mode
        form = _lora_form(adapter, mode=asdict(mode))
    adapter.load_state_dict(file.state_dict)
    return Start(path, adapter.float(), form, mode, _digest(adapter))


def check_start(path):
    """Raises ValueError, in one sentence, unless `path` is a file that shows a model images. Reads its header only."""
    if not Path(path).is_file():
        raise ValueError(f"start: there is no file {path}; train it first, or name another.")
    if read_metadata(path).get("kind") in (FEW_STEPS, PLAIN):
        raise ValueError(
            f"start: {path} is a LoRA that shows the model no image; name the FluxIR adapter or the UMMF LoRA that it was trained beside."
        )


def _digest(module):
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def new_adapter(config, transformer, empty=None):
    """What a run of `config` (FluxIRConfig or UMMFConfig) trains on `transformer`, new, float32, its output zero.

    `empty`, the empty prompt's (text, pooled), goes into an adapter's file, for graphs without a text encoder.
    Returns (module, form, ConditionMode or None).
    """
    dims = flux_dimensions(transformer)
    torch.manual_seed(config.run.seed)  # every process starts with the same weights
    if hasattr(config.adapter, "mode"):
        lora = LoRA.new(dims, config.adapter.rank)
        return lora, _lora_form(lora, mode=asdict(config.adapter.mode)), config.adapter.mode
    adapter = FluxIRAdapter(AdapterConfig(dims, text_tokens=config.data.text_tokens, **asdict(config.adapter)))
    later = re.compile(r"transformer_blocks\.(?!0\.)|single_transformer_blocks\.")
    adapter.init_from_base({key: value for key, value in transformer.state_dict().items() if not later.match(key)})
    if empty is not None:
        adapter.null_text.copy_(empty[0])
        adapter.null_pooled.copy_(empty[1])
    return adapter, _adapter_form(adapter), None


def on_base(transformer, module, form, mode):
    """Puts an adapter or a LoRA on its host.

    Args:
        transformer: the frozen FluxTransformer2DModel.
        module: FluxIRAdapter, or LoRA.
        form: of the module.
        mode: a LoRA's ConditionMode; None for an adapter.

    Returns:
        Trained.
    """
    host = FluxIRHost(transformer, module) if mode is None else UMMFHost(transformer, module, mode)
    return Trained(host, module, form)


def lora_beside(host, rank, seed=0, schedules=None):
    """Adds a new LoRA to a host's base, beside its own adapter, which is frozen; its output is zero.

    Args:
        host: FluxIRHost or UMMFHost.
        rank: of the LoRA.
        seed: of its first weights.
        schedules: {steps: sigmas} make it a few-step student; None a plain LoRA.

    Returns:
        Trained.
    """
    dims = flux_dimensions(host.transformer)
    torch.manual_seed(seed)
    targets = lora_targets(dims) | {name: linear_sizes(dims)[name] for name in LAST}
    host.adapter.requires_grad_(False)
    with torch.device(next(host.adapter.parameters()).device):
        lora = LoRA.over(targets, dims, rank)
    return Trained(LoRAHost(host, lora), lora, _lora_form(lora, schedules=schedules))


def _adapter_form(adapter):
    config = asdict(adapter.config)
    return {"kind": FLUXIR, "config": {name: config[name] for name in config if name != "dims"}}


def _lora_form(lora, **more):
    return {"kind": "lora", "shapes": {name: list(shape) for name, shape in lora.shapes.items()}, **more}


def rebuilt(form, dims):
    """The module that `form` describes, with any weights, for a base of `dims` (FluxDimensions)."""
    if form["kind"] == FLUXIR:
        return FluxIRAdapter(AdapterConfig(dims, **form["config"]))
    return LoRA({name: tuple(shape) for name, shape in form["shapes"].items()}, dims)


def write_file(path, module, form, metadata):
    """Writes an adapter's file, a UMMF LoRA's, a few-step student's or a plain LoRA's.

    Args:
        path: of the file.
        module: what was trained.
        form: of the module.
        metadata: str to str, beside what each kind of file says itself.
    """
    if form["kind"] == FLUXIR:
        save_adapter(path, module, metadata)
    elif form.get("mode"):
        save_lora(path, module, metadata, ConditionMode(**form["mode"]))
    elif form.get("schedules"):
        save_few_steps(path, module, form["schedules"], metadata)
    else:
        save_layers(path, module, {**metadata, "kind": PLAIN})


@torch.no_grad()
def keep_some(module, before, share):
    """Moves the weights of `module` back to those of `before`, a module of the same form, by `share` (WiSE-FT, arXiv 2109.01903,
    equation 1)."""
    old, new = whole(before.state_dict()), whole(module.state_dict())
    module.load_state_dict({name: torch.lerp(new[name].float(), old[name].float(), share) for name in new})
