"""`fluxir train ummf`: its configuration, its data, and the file it makes."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import yaml

from ..fluxir_core.adapter import ConditionMode, LoRA, save_lora
from .base_model import flux_dimensions
from .miniature.checkpoint import Checkpoint
from .model_folder import load_models
from .pictures import FolderCrops, MiniatureCrops
from .ummf import UMMFRecipe, train_ummf
from .ummf_host import UMMFHost

CONFIGS = Path(__file__).resolve().parent / "configs"


@dataclass(frozen=True)
class UMMFConfig:
    """A run: the `model` folder and the `data` folder (or "miniature" for either), crops of `size` pixels a side, the
    LoRA's `rank`, how it reads pictures, and the recipe."""

    model: str
    data: str
    size: int = 512
    rank: int = 16
    mode: ConditionMode = ConditionMode()
    recipe: UMMFRecipe = UMMFRecipe()

    @classmethod
    def load(cls, path):
        """Reads a YAML file with the fields' names. Raises ValueError on one that is missing, unknown or of another type."""
        try:
            return _typed(cls, yaml.safe_load(Path(path).read_text(encoding="utf-8")), Path(path).name)
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"{path} cannot be read as a configuration ({error}); see {CONFIGS / 'ummf.yaml'}.") from None


def _typed(cls, values, where):
    """`cls` from a mapping of its fields. Numbers may be whole where a float is expected, nothing else is converted."""
    known = {field.name: field for field in fields(cls)}
    if not isinstance(values, dict):
        raise ValueError(f"{where} is no mapping; use {', '.join(known)}.")
    for name in values:
        if name not in known:
            raise ValueError(f"{where} has no setting {name!r}; use {', '.join(known)}.")
    typed = {}
    for name, value in values.items():
        kind = known[name].type
        if hasattr(kind, "__dataclass_fields__"):
            typed[name] = _typed(kind, value, f"{where}: {name}")
            continue
        if isinstance(value, int) and kind in (float, float | None):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{where}: {name} is {value!r}, but a {getattr(kind, '__name__', kind)} is expected.")
        typed[name] = value
    try:
        return cls(**typed)
    except TypeError as error:
        raise ValueError(f"{where} is incomplete ({error}); see {CONFIGS / 'ummf.yaml'}.") from None


def train(config, work, out, device="cpu"):
    """Trains by `config` (UMMFConfig), resuming from what `work` holds, and writes the LoRA to the file `out`."""
    work = Path(work)
    models = load_models(config.model, device, torch.bfloat16 if device == "cuda" else torch.float32)
    if config.data == "miniature":
        batches = MiniatureCrops(config.size, config.recipe.batch, work, device)
    else:
        batches = FolderCrops(config.data, config.size, config.recipe.batch, models, device)
    torch.manual_seed(0)
    lora = LoRA.new(flux_dimensions(models.transformer), config.rank, device=device)
    host = UMMFHost(models.transformer, lora, config.mode)
    averaged = train_ummf(host, batches, config.recipe, Checkpoint(work / "ummf.pt"))
    configuration = json.dumps(asdict(config), sort_keys=True)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "training_config": configuration,
        "training_config_hash": hashlib.sha256(configuration.encode()).hexdigest()[:16],
        "data": batches.description,
        "base_model": "mini-FLUX" if config.model == "miniature" else Path(config.model).name,
        "licence": "Apache-2.0",
    }
    save_lora(out, averaged.bfloat16(), metadata, config.mode)
