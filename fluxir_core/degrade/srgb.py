"""Light and its encoding: the transfer functions of sRGB (IEC 61966-2-1). Light adds up; encoded values do not."""

import torch


def linear(encoded):
    """The light, in [0, 1] of full scale, that sRGB values in [0, 1] stand for."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def encoded(light):
    """The sRGB values of `light`, which is clipped to [0, 1]."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
