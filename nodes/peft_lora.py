"""LoRAs as peft saves them, which ComfyUI's own loader passes over."""

import torch


def as_core_lora(layers):
    """{module: PeftLayer} as weights that comfy.lora reads, by the same names."""
    weights = {}
    for module, layer in layers.items():
        weights[f"{module}.lora_down.weight"], weights[f"{module}.lora_up.weight"] = layer.down, layer.up
        weights[f"{module}.alpha"] = torch.tensor(layer.scale * len(layer.down))
    return weights
