from .checkpoint import AdapterFileError, LoadedAdapter, LoadReport, check_base, load_adapter, save_adapter
from .condition import ConditionBranch, ConditionStream, condition_positions, crop_to_tile, log_strength, reference_places
from .condition_memory import MAX_KEPT, ConditionCache, ConditionMemory
from .dimensions import FLUX_DEV, FluxDimensions
from .few_steps import add_schedules, read_schedules, save_few_steps
from .keymap import bfl_to_diffusers, diffusers_parts, diffusers_to_bfl
from .lora import LoRA, LoRALayer, layer_key, linear_sizes, lora_targets
from .lora_file import FEW_STEPS, LoadedLoRA, check_lora_base, diffusers_weights, load_lora, save_lora
from .mode import KONTEXT, OMINI, ConditionMode
from .model import AdapterConfig, Condition, Control, FluxIRAdapter

__all__ = [
    "FEW_STEPS",
    "FLUX_DEV",
    "KONTEXT",
    "MAX_KEPT",
    "OMINI",
    "AdapterConfig",
    "AdapterFileError",
    "Condition",
    "ConditionBranch",
    "ConditionCache",
    "ConditionMemory",
    "ConditionMode",
    "ConditionStream",
    "Control",
    "FluxDimensions",
    "FluxIRAdapter",
    "LoRA",
    "LoRALayer",
    "LoadReport",
    "LoadedAdapter",
    "LoadedLoRA",
    "add_schedules",
    "bfl_to_diffusers",
    "check_base",
    "check_lora_base",
    "condition_positions",
    "crop_to_tile",
    "diffusers_parts",
    "diffusers_to_bfl",
    "diffusers_weights",
    "layer_key",
    "linear_sizes",
    "load_adapter",
    "load_lora",
    "log_strength",
    "lora_targets",
    "read_schedules",
    "reference_places",
    "save_adapter",
    "save_few_steps",
    "save_lora",
]
