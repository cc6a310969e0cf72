"""Few-step files: a student's LoRA, and the schedules that this LoRA or an adapter is to be sampled on."""

import json
import re
from itertools import pairwise
from pathlib import Path

from ..flux.weight_files import FORMAT_VERSION, WeightFileError, read_json, read_metadata, read_safetensors, write_safetensors
from .files import FEW_STEPS, save_layers

SCHEDULES = "schedules"


def save_few_steps(path, lora, schedules, metadata):
    """Writes a student's file in diffusers' keys, which ComfyUI's own LoRA loaders read.

    Args:
        path: of the file.
        lora: LoRA.
        schedules: {steps: sigmas}, each falling to 0.
        metadata: str to str.
    """
    save_layers(path, lora, {**metadata, "format_version": FORMAT_VERSION, "kind": FEW_STEPS, SCHEDULES: _text(schedules)})


def add_schedules(path, schedules):
    """Writes `schedules` {steps: sigmas} into the header of the safetensors file `path`."""
    metadata, mapped = read_safetensors(path)
    weights = {name: tensor.clone() for name, tensor in mapped.items()}
    del mapped  # Windows replaces no file that is mapped to memory
    write_safetensors(path, weights, {**metadata, SCHEDULES: _text(schedules)})


def read_schedules(path):
    """The schedules {steps: sigmas} that the safetensors file `path` states, {} where it has none; reads the header only.

    Raises WeightFileError on another file, and on schedules that do not fall from at most 1 to 0.
    """
    name = Path(path).name
    metadata = read_metadata(path)
    if SCHEDULES not in metadata:
        return {}
    try:
        stated = read_json(metadata, SCHEDULES)
        if not isinstance(stated, dict) or not all(re.fullmatch(r"[1-9]\d{0,3}", steps) for steps in stated):
            raise ValueError(f"{SCHEDULES} are not by numbers of steps")
        if not all(isinstance(sigmas, list) and {type(t) for t in sigmas} <= {int, float} for sigmas in stated.values()):
            raise ValueError("sigmas are no numbers")
    except ValueError as error:
        raise WeightFileError(f"{name} has unreadable schedules ({error}); run `fluxir schedule` again.") from None
    schedules = {int(steps): [*map(float, sigmas)] for steps, sigmas in stated.items()}
    for steps, sigmas in schedules.items():
        falling = all(a > b for a, b in pairwise(sigmas))
        if len(sigmas) != steps + 1 or not falling or sigmas[0] > 1 or sigmas[-1] != 0:
            raise WeightFileError(
                f"{name} has a schedule for {steps} steps that is {str(sigmas)[:60]}, which does not fall from 1 or less to 0; run "
                "`fluxir schedule` again."
            )
    return dict(sorted(schedules.items()))


def _text(schedules):
    return json.dumps({str(steps): [round(float(t), 6) for t in sigmas] for steps, sigmas in schedules.items()})
