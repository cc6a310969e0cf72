"""Nodes that show a FLUX model condition pictures: Unified Multi-Modal Fusion, OminiControl's LoRAs, FLUX.1 Kontext."""

import logging
from functools import partial

import comfy.hooks
import comfy.ops
import comfy.sd
import folder_paths
import node_helpers
from comfy.latent_formats import Flux
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io

from ..fluxir_core.adapter import FEW_STEPS, AdapterFileError, LoRA, check_lora_base, diffusers_weights, load_lora
from .condition_injection import KEY, TILE, ConditionInjection, TileCond, strength_hook
from .inputs import checked_latent, given_planes
from .native_flux import attach, flux_dimensions, managed, native_flux

CONDITIONING_NODE = "UMMF Conditioning"
LORA_NODE = "Apply UMMF LoRA"


class UMMFConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def picture(name, **kwargs):
            return io.MultiType.Input(name, [io.Latent, io.Image], **kwargs)

        return io.Schema(
            node_id="UMMFConditioning",
            display_name=CONDITIONING_NODE,
            category="FluxIR/conditioning",
            description="Shows the model a degraded picture beside the prompt, as tokens in one sequence with the text and "
            "the noise. For a FLUX model with Apply UMMF LoRA, or a FLUX.1 Kontext model as it is.",
            search_aliases=["ummf", "resflow", "ominicontrol", "kontext", "reference latent", "condition image", "restore"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The prompt: a caption of the picture, or an empty one. With "
                    "cfg above 1 give the negative prompt a node of its own.",
                ),
                picture(
                    "degraded",
                    tooltip="The degraded picture: a LATENT from VAE Encode, or an IMAGE if a VAE is "
                    "connected. Any size; one, or one for each picture of the sampled batch.",
                ),
                picture(
                    "reference",
                    optional=True,
                    tooltip="A second picture to look at, for instance a degradation "
                    "remover's. Leave it out unless the LoRA was trained with one.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Encodes pictures given as IMAGE; not needed for LATENTs."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.01,
                    tooltip="How much the output looks at the pictures: a factor on the attention they get. 1 is "
                    "what models are trained for, 0 leaves them out.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The prompt with its pictures, for any guider or sampler."
                ),
            ],
        )

    @classmethod
    def execute(cls, conditioning, degraded, reference=None, vae=None, strength=1.0) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(conditioning)
        pictures = {"degraded": degraded, "reference": reference}
        latents = [_latents(name, value, vae) for name, value in pictures.items() if value is not None]
        conditioning = node_helpers.conditioning_set_values(conditioning, {"reference_latents": latents}, append=True)
        conditioning = [
            [text, {**values, "model_conds": {**values.get("model_conds", {}), TILE: TileCond(None)}}]
            for text, values in conditioning
        ]
        if strength != 1:
            conditioning = comfy.hooks.set_hooks_for_conditioning(conditioning, strength_hook(strength))
        return io.NodeOutput(conditioning)


def _latents(name, value, vae):
    if isinstance(value, dict):
        return checked_latent(CONDITIONING_NODE, name, value["samples"], Flux(), "FLUX.1's")
    if vae is None:
        raise ValueError(f"{CONDITIONING_NODE}: {name} is an IMAGE but no VAE is connected; connect the model's VAE, or a LATENT.")
    image = given_planes(CONDITIONING_NODE, name, value).movedim(1, -1)
    least = vae.spacial_compression_encode()
    if min(image.shape[1:3]) < least:
        raise ValueError(
            f"{CONDITIONING_NODE}: {name} is {image.shape[2]}x{image.shape[1]} pixels, but the VAE needs at least {least} a side; "
            "give a larger image."
        )
    return checked_latent(CONDITIONING_NODE, f"the latent of {name}", vae.encode(image), Flux(), "FLUX.1's")


class ApplyUMMFLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ApplyUMMFLoRA",
            display_name=LORA_NODE,
            category="FluxIR/conditioning",
            description="Teaches a FLUX model to read the pictures of UMMF Conditioning, by a LoRA that `fluxir train ummf` "
            "made or a public one of OminiControl.",
            search_aliases=["ummf", "resflow", "ominicontrol", "omini", "condition lora", "load lora", "restore"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A FLUX model of the size that the LoRA was made for, with or without other LoRAs and adapters.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A file of models/loras. How it reads pictures is written in the file; OminiControl's "
                    "are recognised by their keys.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How much the LoRA changes the model. 1 is what it was trained for.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The model, for any sampler or guider, with prompts from UMMF Conditioning."
                ),
            ],
        )

    @classmethod
    def execute(cls, model, lora_name, strength) -> io.NodeOutput:
        dims = flux_dimensions(native_flux(model, LORA_NODE))
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        try:
            loaded = load_lora(path)
        except AdapterFileError as error:
            raise AdapterFileError(f"{LORA_NODE}: {error}") from None
        if loaded.metadata.get("kind") == FEW_STEPS:
            raise AdapterFileError(f"{LORA_NODE}: {lora_name} is a few-step LoRA, which reads no picture; load it with Load LoRA.")
        try:
            check_lora_base(loaded, dims)
        except AdapterFileError as error:
            raise AdapterFileError(f"{LORA_NODE}: {lora_name}: {error}") from None
        logging.info("UMMF LoRA %s: %s; %s", lora_name, loaded.report, loaded.mode)
        lora = None
        if loaded.mode.tokens == "all":
            # Every token sees the same weights: core's own LoRA loader changes them, in a spelling that it reads.
            model, _ = comfy.sd.load_lora_for_models(model, None, diffusers_weights(loaded), strength, 0)
        else:
            model = model.clone()
            lora = managed(partial(LoRA, loaded.shapes, dims, ops=comfy.ops.manual_cast), loaded.state_dict)
            attach(model, KEY, lora)
        injection = ConditionInjection(loaded.mode, lora.model if lora else None, strength)
        for kind, hook in (
            (WrappersMP.DIFFUSION_MODEL, injection.diffusion_model),
            (WrappersMP.PREPARE_SAMPLING, injection.prepare_sampling),
        ):
            model.remove_wrappers_with_key(kind, KEY)  # one LoRA reads the pictures: the last
            model.add_wrapper_with_key(kind, KEY, hook)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, injection.cleanup)
        return io.NodeOutput(model)
