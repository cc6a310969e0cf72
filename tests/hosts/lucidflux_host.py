"""A tiny LucidFlux in the ComfyUI of this process, as its nodes load and apply it, and random images for it."""

import json

import torch
from safetensors.torch import save_file

from ..unit import lucidflux_reference as reference
from ..unit.lucidflux_reference import random_weights
from .comfy_host import random

CLOSE = dict(rtol=1e-3, atol=1e-3)
"""Of samples, whose values are up to about 10: other orders of summation differ by a few 1e-4."""

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


def planes(image):
    return 2 * image.movedim(-1, 1) - 1


def by_the_paper(lucid, degraded=None, cleaned=None, seen=None, strength=1.0):
    """A FLUX that gets what the paper says, by the tests' own reference: residuals and semantic tokens."""
    degraded, cleaned = image(1) if degraded is None else degraded, image(2) if cleaned is None else cleaned
    seen = (features(3) if seen is None else seen)["last_hidden_state"]

    def call(function, arguments):
        x, t, c = arguments["input"], arguments["timestep"], dict(arguments["c"])
        rows = len(x)
        given = (c["c_crossattn"], c["y"], t.float(), c["guidance"])
        residuals = reference.residuals(
            lucid.weights,
            x,
            planes(degraded).expand(rows, -1, -1, -1),
            planes(cleaned).expand(rows, -1, -1, -1),
            *given,
            blocks=2,
        )
        tokens = reference.semantic_tokens(lucid.weights, seen).expand(rows, -1, -1)
        c["c_crossattn"] = torch.cat([c["c_crossattn"], tokens], 1)
        c["control"] = {"input": [strength * residual for residual in residuals], "output": []}
        return function(x, t, **c)

    model = lucid.host.model.clone()
    model.set_model_unet_function_wrapper(call)
    return model


def write_lora(folder):
    """A LoRA in LucidNFT's layout in `folder`; what it adds, by LucidFlux's names."""
    modules = {
        "lq.double_blocks.1.img_mlp.0": ("condition_lq.double_blocks.1.img_mlp.0", 128, 512),
        "pre.controlnet_blocks.0": ("condition_ldr.controlnet_blocks.0", 128, 128),
    }
    weights, deltas = {}, {}
    for seed, (name, (own, inputs, outputs)) in enumerate(modules.items()):
        down, up = 0.2 * random(seed, 2, inputs), 0.2 * random(seed + 9, outputs, 2)
        key = f"base_model.model.dual_condition_branch.{name}"
        weights |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        deltas[f"{own}.weight"] = 3 * up @ down
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6}), encoding="utf-8")
    return deltas
