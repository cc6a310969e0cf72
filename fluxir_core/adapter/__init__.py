from .checkpoint import AdapterFileError, LoadedAdapter, LoadReport, check_base, load_adapter, save_adapter
from .dimensions import FLUX_DEV, FluxDimensions
from .keymap import bfl_to_diffusers, diffusers_to_bfl
from .model import AdapterConfig, Condition, Control, FluxIRAdapter

__all__ = [
    "FLUX_DEV", "AdapterConfig", "AdapterFileError", "Condition", "Control", "FluxDimensions", "FluxIRAdapter",
    "LoadReport", "LoadedAdapter", "bfl_to_diffusers", "check_base", "diffusers_to_bfl", "load_adapter", "save_adapter",
]  # fmt: skip
