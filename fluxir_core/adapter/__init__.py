from .checkpoint import AdapterFileError, LoadedAdapter, LoadReport, check_base, load_adapter, save_adapter
from .dimensions import FLUX_DEV, FluxDimensions
from .keymap import bfl_to_diffusers, diffusers_to_bfl
from .lora import LoRA, LoRALayer, linear_sizes, lora_targets
from .lora_file import LoadedLoRA, check_lora_base, load_lora, save_lora
from .mode import KONTEXT, OMINI, ConditionMode
from .model import AdapterConfig, Condition, Control, FluxIRAdapter

__all__ = [
    "FLUX_DEV", "KONTEXT", "OMINI", "AdapterConfig", "AdapterFileError", "Condition", "ConditionMode", "Control",
    "FluxDimensions", "FluxIRAdapter", "LoRA", "LoRALayer", "LoadReport", "LoadedAdapter", "LoadedLoRA",
    "bfl_to_diffusers", "check_base", "check_lora_base", "diffusers_to_bfl", "linear_sizes", "load_adapter", "load_lora",
    "lora_targets", "save_adapter", "save_lora",
]  # fmt: skip
