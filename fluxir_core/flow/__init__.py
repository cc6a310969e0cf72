from .path import clean_estimate, interpolate, sample_logit_normal, sample_timesteps
from .run import SearchStopped, Task
from .sampling import euler, flux_sigmas
from .schedules import PRESETS
from .search import Result, plan, search

__all__ = [
    "PRESETS", "Result", "SearchStopped", "Task", "clean_estimate", "euler", "flux_sigmas", "interpolate", "plan",
    "sample_logit_normal", "sample_timesteps", "search",
]  # fmt: skip
