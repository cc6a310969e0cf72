from .basic import downscale, gaussian_blur, gaussian_noise, jpeg, low_light
from .mixture import EVALUATION, degrade_named, degrade_random
from .tasks import TASKS

__all__ = [
    "EVALUATION",
    "TASKS",
    "degrade_named",
    "degrade_random",
    "downscale",
    "gaussian_blur",
    "gaussian_noise",
    "jpeg",
    "low_light",
]
