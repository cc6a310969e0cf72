"""From a checkpoint of a training run to the file that the nodes load."""

import json
from pathlib import Path

import torch

from ...fluxir_core.flux.dimensions import FluxDimensions
from ..bundled import find
from ..engine.run_folder import RunFolder
from ..outputs import deliver
from .adapters import keep_some, open_start, rebuilt, write_file

DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


LICENSE = "Apache-2.0 where the base model's license allows"


CARRIED = ("training_config", "training_config_hash", "trained_before", "data")
"""What a file says of its run as the checkpoint has it."""


def write_adapter(work, out, step=None, weights="average", dtype="bf16", license=None):
    """Writes the adapter or LoRA of a checkpoint to a file that the nodes load.

    The metadata say how it was made: the configuration and its hash, the data, the base, the step.

    Args:
        work: the folder of the checkpoints.
        out: the file; its folder is made where it is missing.
        step: of the checkpoint; None for the latest.
        weights: "average" or "last".
        dtype: "bf16" or "float32".
        license: what the metadata say of it; None for that of the file the run started from, or LICENSE.

    Raises:
        ValueError: there is no such checkpoint.
    """
    saved = RunFolder(work).load(step)
    if saved is None:
        raise ValueError(f"{work} holds no checkpoint; give the --work folder of a run of `fluxir train`.")
    described = saved["description"]
    config = json.loads(described["training_config"])
    dims = FluxDimensions(**{**described["dims"], "axes_dim": tuple(described["dims"]["axes_dim"])})
    adapter = rebuilt(described["form"], dims)
    adapter.load_state_dict(saved["adapter"])
    if weights == "average":
        trained = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
        for parameter, value in zip(trained, saved["average"]["values"], strict=True):
            parameter.data.copy_(value)
    if described["start"]:
        start = open_start(described["start"], dims)
        if start.digest != saved["identity"]["start"]:
            raise ValueError(
                f"{start.path} is no longer the file that the training started from; put that back, to keep a part of it."
            )
        keep_some(adapter, start.module, config["keep"])
    metadata = {
        **{name: described[name] for name in CARRIED if name in described},
        "base_model": own.title if (own := find(config["base"]["folder"])) else Path(config["base"]["folder"]).name,
        "training_steps": str(saved["step"]),
        "license": license or described.get("license", LICENSE),
    }
    adapter = adapter.to(DTYPES[dtype])

    def write(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_file(place, adapter, described["form"], metadata)

    deliver(out, write)
