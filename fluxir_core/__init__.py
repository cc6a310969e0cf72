"""Image restoration with FLUX in plain torch: the science, without a host.

What `__all__` names is the public interface, and is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adapter.checkpoint import load_adapter, save_adapter
    from .adapter.model import AdapterConfig, FluxIRAdapter
    from .degrade.tasks import TASKS
    from .flow.rectified_flow import euler, flux_sigmas
    from .image.color import match_color
    from .lora.files import load_lora
    from .lora.lora import LoRA
    from .searches.evolutionary import EvolutionarySearch
    from .searches.particles import SMC, Halving
    from .searches.presets import PRESETS
    from .searches.search import SearchResult, estimate_cost, search
    from .searches.stepwise import StepwiseSearch
    from .searches.task import Task
    from .searches.within_budget import WithinBudget
    from .ummf.mode import ConditionMode
    from .verify.ensemble import DefaultEnsemble, Ensemble
    from .verify.protocol import Verifier

__all__ = [
    "PRESETS",
    "SMC",
    "TASKS",
    "AdapterConfig",
    "ConditionMode",
    "DefaultEnsemble",
    "Ensemble",
    "EvolutionarySearch",
    "FluxIRAdapter",
    "Halving",
    "LoRA",
    "SearchResult",
    "StepwiseSearch",
    "Task",
    "Verifier",
    "WithinBudget",
    "estimate_cost",
    "euler",
    "flux_sigmas",
    "load_adapter",
    "load_lora",
    "match_color",
    "save_adapter",
    "search",
]

_MODULES = {
    "adapter.checkpoint": ("load_adapter", "save_adapter"),
    "adapter.model": ("AdapterConfig", "FluxIRAdapter"),
    "degrade.tasks": ("TASKS",),
    "flow.rectified_flow": ("euler", "flux_sigmas"),
    "image.color": ("match_color",),
    "lora.files": ("load_lora",),
    "lora.lora": ("LoRA",),
    "searches.evolutionary": ("EvolutionarySearch",),
    "searches.particles": ("SMC", "Halving"),
    "searches.presets": ("PRESETS",),
    "searches.search": ("SearchResult", "estimate_cost", "search"),
    "searches.stepwise": ("StepwiseSearch",),
    "searches.task": ("Task",),
    "searches.within_budget": ("WithinBudget",),
    "ummf.mode": ("ConditionMode",),
    "verify.ensemble": ("DefaultEnsemble", "Ensemble"),
    "verify.protocol": ("Verifier",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
