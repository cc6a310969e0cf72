"""Nodes for LoRAs as peft saves them, which ComfyUI's own loader passes over: on a model, and on a VAE's encoder."""

import copy

import comfy.lora
import folder_paths
import torch
from comfy_api.latest import io

from ..fluxir_core.flux.weight_files import WeightFileError
from ..fluxir_core.lora.peft_files import load_peft, rename
from ..fluxir_core.lora.vae_names import encoder_module
from .runtime import speaking_for

MODEL_NODE, VAE_NODE = "Apply PEFT LoRA", "Apply VAE LoRA"
PREFIXES = ("diffusion_model.", "transformer.", "")
"""Under which core knows a module by its own name, or by diffusers'."""


def as_core_lora(layers):
    """{module: PeftLayer} as weights that comfy.lora reads, by the same names."""
    weights = {}
    for module, layer in layers.items():
        weights[f"{module}.lora_down.weight"], weights[f"{module}.lora_up.weight"] = layer.down, layer.up
        weights[f"{module}.alpha"] = torch.tensor(layer.scale * len(layer.down))
    return weights


def patch(patcher, layers, keys, strength):
    """Lets `patcher` (a ModelPatcher of the caller's own) add the LoRA `layers` {module: PeftLayer} to the weights at
    `keys` {module: key}; returns how many it knew."""
    return len(patcher.add_patches(comfy.lora.load_lora(as_core_lora(layers), keys), strength))


def _lora_inputs(tooltip):
    return [
        io.Combo.Input("lora_name", options=folder_paths.get_filename_list("loras"), tooltip=tooltip),
        io.Float.Input("strength", default=1.0, min=-2.0, max=2.0, step=0.01, tooltip="1 is what the LoRA was trained for."),
    ]


class ApplyPEFTLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRApplyPEFTLoRA",
            display_name=MODEL_NODE,
            category="FluxIR/one step",
            description="Changes a model by a LoRA as peft saves it, with the strength that its configuration states: LucidNFT's "
            "lora_dit, OMGSR's flux_adapter.",
            search_aliases=["peft", "adapter_model.safetensors", "load lora", "lucidnft", "omgsr", "base_model.model", "fluxir"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the LoRA was made for, with or without other LoRAs and adapters."),
                *_lora_inputs(
                    "adapter_model.safetensors of a LoRA. Keep its folder with adapter_config.json, which says how strong it is, "
                    "below models/loras."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The changed model.")],
        )

    @classmethod
    def execute(cls, model, lora_name, strength) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        known = comfy.lora.model_lora_keys_unet(model.model, {})

        def core_name(module):
            return next((f"{prefix}{module}" for prefix in PREFIXES if f"{prefix}{module}" in known), None)

        with speaking_for(MODEL_NODE):
            layers = rename(load_peft(path), core_name, path, f"this {type(model.model).__name__}")
        model = model.clone()
        patch(model, layers, known, strength)
        return io.NodeOutput(model)


class ApplyVAELoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRApplyVAELoRA",
            display_name=VAE_NODE,
            category="FluxIR/one step",
            description="Changes the encoder of a VAE by a LoRA as peft saves it: OMGSR's vae_encoder_adapter.",
            search_aliases=["peft", "vae encoder adapter", "omgsr", "patch vae", "load lora", "fluxir"],
            inputs=[
                io.Vae.Input("vae", tooltip="FLUX's VAE (ae.safetensors) from Load VAE. It is left as it is."),
                *_lora_inputs(
                    "adapter_model.safetensors of a LoRA on a VAE's encoder. Keep its folder with adapter_config.json below models/loras."
                ),
            ],
            outputs=[
                io.Vae.Output(display_name="vae", tooltip="For VAE Encode of the degraded image; decode with the VAE as it was.")
            ],
        )

    @classmethod
    def execute(cls, vae, lora_name, strength) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        with speaking_for(VAE_NODE):
            layers = rename(load_peft(path), encoder_module, path, "a VAE's encoder")
        changed = copy.copy(vae)
        changed.patcher = vae.patcher.clone()
        if patch(changed.patcher, layers, {module: f"{module}.weight" for module in layers}, strength) < len(layers):
            raise WeightFileError(
                f"{VAE_NODE}: {lora_name} changes parts that this VAE lacks; choose the VAE that it was made for, such as FLUX's "
                "ae.safetensors."
            )
        return io.NodeOutput(changed)
