"""A tiny LucidFlux in the ComfyUI of this process, as its nodes load and apply it, and random images for it."""

import torch
from safetensors.torch import save_file

from ..unit.lucidflux_reference import random_weights

SIZES = dict(hidden=128, context=64, vec=32, features=12, inner=24)
"""Those of tests.hosts.tiny.TINY."""


class LucidFluxHost:
    """`host` (comfy_host.Host) with LucidFlux's weights in `folder`; `weights` are the file's, by the public names."""

    def __init__(self, host, folder):
        import folder_paths
        from comfyui_fluxir.nodes.lucidflux import ApplyLucidFlux, LoadLucidFlux

        self.host, self.folder, self.weights = host, folder, random_weights(**SIZES)
        save_file(self.weights, folder / "lucidflux.safetensors")
        folder_paths.add_model_folder_path("model_patches", str(folder), is_default=True)
        folder_paths.add_model_folder_path("loras", str(folder), is_default=True)
        self.load = lambda name="lucidflux.safetensors": LoadLucidFlux.execute(name).result[0]
        self.lucidflux = self.load()
        self._apply = ApplyLucidFlux.execute

    def apply(self, model=None, degraded=None, cleaned=None, clip_vision=None, strength=1.0, start=0.0, end=1.0, lucidflux=None):
        degraded = image(1) if degraded is None else degraded
        cleaned = image(2) if cleaned is None else cleaned
        clip_vision = features(3) if clip_vision is None else clip_vision
        node = self._apply(
            model or self.host.model, lucidflux or self.lucidflux, degraded, cleaned, clip_vision, strength, start, end
        )
        return node.result[0]


def image(seed, batch=1, height=64, width=64):
    """An IMAGE of noise."""
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(seed))


def features(seed, batch=1, tokens=10):
    """A CLIP_VISION_OUTPUT of noise."""
    generator = torch.Generator().manual_seed(seed)
    return {"last_hidden_state": torch.randn(batch, tokens, SIZES["features"], generator=generator)}
