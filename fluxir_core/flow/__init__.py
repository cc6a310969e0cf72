from .jumps import jump_costs, optimal_schedule, schedule_cost
from .path import clean_estimate, interpolate, sample_logit_normal, sample_timesteps
from .run import Task
from .sampling import check_sigmas, euler, flux_sigmas
from .schedules import PRESETS
from .search import Result, plan, search
from .trajectory import sample_gammas, trajectory

__all__ = [
    "PRESETS",
    "Result",
    "Task",
    "check_sigmas",
    "clean_estimate",
    "euler",
    "flux_sigmas",
    "interpolate",
    "jump_costs",
    "optimal_schedule",
    "plan",
    "sample_gammas",
    "sample_logit_normal",
    "sample_timesteps",
    "schedule_cost",
    "search",
    "trajectory",
]
