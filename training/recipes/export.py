"""From a checkpoint of a training run to the file that the nodes load."""

import json
from pathlib import Path

import torch

from ...fluxir_core.adapter.checkpoint import save_adapter
from ...fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from ...fluxir_core.flux.dimensions import FluxDimensions
from ...fluxir_core.lora.files import save_lora
from ...fluxir_core.lora.lora import LoRA
from ...fluxir_core.ummf.mode import ConditionMode
from ..bundled import find
from ..engine.run_folder import RunFolder
from ..outputs import deliver

DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


LICENSE = "Apache-2.0 where the base model's license allows"


def write_adapter(work, out, step=None, weights="average", dtype="bf16", license=LICENSE):
    """Writes the adapter or LoRA of a checkpoint to a file that the nodes load.

    The metadata say how it was made: the configuration and its hash, the data, the base, the step.

    Args:
        work: the folder of the checkpoints.
        out: the file; its folder is made where it is missing.
        step: of the checkpoint; None for the latest.
        weights: "average" or "last".
        dtype: "bf16" or "float32".
        license: what the metadata say of it.

    Raises:
        ValueError: there is no such checkpoint.
    """
    saved = RunFolder(work).load(step)
    if saved is None:
        raise ValueError(f"{work} holds no checkpoint; give the --work folder of a run of `fluxir train`.")
    described = saved["description"]
    config, dims = json.loads(described["training_config"]), described["dims"]
    dims = FluxDimensions(**{**dims, "axes_dim": tuple(dims["axes_dim"])})
    if "mode" in config["adapter"]:
        mode, adapter = ConditionMode(**config["adapter"]["mode"]), LoRA.new(dims, config["adapter"]["rank"])
    else:
        adapter = FluxIRAdapter(AdapterConfig(dims, text_tokens=config["data"]["text_tokens"], **config["adapter"]))
    adapter.load_state_dict(saved["adapter"])
    if weights == "average":
        trained = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
        for parameter, value in zip(trained, saved["average"]["values"], strict=True):
            parameter.data.copy_(value)
    metadata = {
        "training_config": described["training_config"],
        "training_config_hash": described["training_config_hash"],
        "data": described["data"],
        "base_model": own.title if (own := find(config["base"]["folder"])) else Path(config["base"]["folder"]).name,
        "training_steps": str(saved["step"]),
        "license": license,
    }
    adapter = adapter.to(DTYPES[dtype])

    def write(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(adapter, LoRA):
            save_lora(place, adapter, metadata, mode)
        else:
            save_adapter(place, adapter, metadata)

    deliver(out, write)
