"""A picture taken in too little light."""

from .field import smooth_field
from .picture import per_picture
from .sensor import read_noise, sensor_error
from .srgb import encoded, linear

STOPS, UNEVEN, SHOT = 4.5, 0.3, 0.0012
"""At strength 1: mean loss of light in stops, how much of it varies over the picture, and the sensor's noise per light."""


@per_picture
def low_light(image, strength, draw):
    """The scene under 1/22 of its light at strength 1, unevenly, as a sensor records it.

    Retinex (Land and McCann 1971): light is reflectance times a smooth illumination, which is dimmed here by 4.5 stops, give
    or take 15 %, and 30 % more or less from place to place. Noise belongs to it (Lore et al. 2017, LLNet): that of
    `sensor_error`, which does not fade with the light.
    """
    stops = strength * STOPS * draw.uniform(0.85, 1.15)
    lost = 1 + UNEVEN * (2 * smooth_field(draw, *image.shape[1:]) - 1)
    light = linear(image) * 2 ** (-stops * lost.to(image))
    shot = SHOT * strength**2
    return encoded(light + sensor_error(light, shot, read_noise(shot, draw), draw))
