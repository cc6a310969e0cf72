"""The degradations by their names: seven restoration tasks (blur in two kinds), and Real-ESRGAN's mixture of many."""

from .blur import defocus_blur, motion_blur
from .real_esrgan import real_esrgan
from .sensor import low_light, low_resolution, sensor_noise
from .weather import raindrops, snow, underwater

TASKS = {
    "low resolution": low_resolution,
    "motion blur": motion_blur,
    "defocus blur": defocus_blur,
    "sensor noise": sensor_noise,
    "low light": low_light,
    "underwater": underwater,
    "raindrops": raindrops,
    "snow": snow,
    "Real-ESRGAN": real_esrgan,
}
"""Functions of (images (B, 3, H, W) in [0, 1], strength in [0, 1], seeds: B integers); see `per_image`."""
