"""UMMF's nodes as tests call them, and the LoRA files that they read."""

from dataclasses import replace
from itertools import product

from comfyui_fluxir.fluxir_core.lora.files import save_lora
from comfyui_fluxir.fluxir_core.lora.lora import LoRA
from comfyui_fluxir.fluxir_core.ummf.mode import KONTEXT, OMINI, ConditionMode

from .comfy_host import prompt, random_latent
from .test_ummf_diffusers import random_lora
from .tiny import TINY

ALONE = ConditionMode(attention="alone")
MODES = {"kontext": KONTEXT, "omini": OMINI, "alone": ALONE}
SCALE, SHIFT = 0.3611, 0.1159


def conditioned(ummf, lq=None, positive=None, **options):
    lq = random_latent(1) if lq is None else lq
    return ummf.UMMFConditioning.execute(positive or prompt(3), {"samples": lq}, **options).result[0]


def applied(ummf, host, name, strength=1.0):
    return ummf.ApplyUMMFLoRA.execute(host.model, f"{name}.safetensors", strength).result[0]


def injection(ummf, model):
    return model.callbacks["on_cleanup"][ummf.KEY][-1].__self__


def write_loras(folder):
    """Writes LoRA files of every mode, and of one whose output is zero, to `folder`."""
    for name, mode in MODES.items():
        save_lora(folder / f"ummf-{name}.safetensors", random_lora(), {}, mode)
        save_lora(folder / f"zero-{name}.safetensors", LoRA.new(TINY, 4), {}, mode)
    beside = replace(KONTEXT, tokens="condition")
    save_lora(folder / "zero-beside.safetensors", LoRA.new(TINY, 4), {}, beside)
    for attention, images in product(("joint", "alone"), ("joint", "apart")):
        mode = replace(beside, attention=attention, images=images)
        save_lora(folder / f"zero-{attention}-{images}.safetensors", LoRA.new(TINY, 4), {}, mode)
    save_lora(folder / "ummf-apart.safetensors", random_lora(), {}, ConditionMode(images="apart"))
