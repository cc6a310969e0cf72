"""Nodes that show a FLUX model condition images: Unified Multi-Modal Fusion, OminiControl's LoRAs, FLUX.1 Kontext."""

import logging
from functools import partial
from typing import Any

import comfy.hooks
import comfy.ops
import comfy.sd
import folder_paths
import node_helpers
from comfy.latent_formats import Flux
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io

from ..fluxir_core.flux.weight_files import WeightFileError
from ..fluxir_core.lora.files import FEW_STEPS, check_lora_base, diffusers_weights, load_lora
from ..fluxir_core.lora.lora import LoRA
from .inputs import checked_latent, given_planes
from .native_flux import attach, flux_dimensions, make_managed, native_flux
from .runtime import nodes_of_run, speaker
from .tile_context import TILE, TileCond
from .ummf_hooks import KEY, UMMFHooks, strength_hook

CONDITIONING_NODE = "UMMF Conditioning"
LORA_NODE = "Apply UMMF LoRA"
READERS = ("kontext", "flux2", "flux-2", "qwen")
"""What the files of models are called that read reference images by themselves."""


class UMMFConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def image_input(name, **kwargs):
            return io.MultiType.Input(name, [io.Latent, io.Image], **kwargs)

        return io.Schema(
            node_id="FluxIRUMMFConditioning",
            display_name=CONDITIONING_NODE,
            category="FluxIR/conditioning",
            description="Shows the model the degraded image beside the prompt (UMMF: unified multi-modal fusion). For FLUX.1 "
            "with Apply UMMF LoRA, or for FLUX.1 Kontext as it is.",
            search_aliases=["resflow", "ominicontrol", "kontext", "reference latent", "condition image", "restore", "fluxir"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The prompt: a caption of the image, or an empty one. With cfg above 1, give the negative prompt a "
                    "node of its own.",
                ),
                image_input(
                    "degraded",
                    tooltip="The degraded image: a LATENT from VAE Encode, or an IMAGE if a VAE is connected. Any size; one for "
                    "the whole batch, or one for each sampled image.",
                ),
                image_input(
                    "reference",
                    optional=True,
                    tooltip="A second image to look at, for example one from a cleaning model. Leave it out unless the LoRA was "
                    "trained with one.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Encodes images given as IMAGE. Not needed for LATENT."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.01,
                    tooltip="How much the result looks at the images. 1 is what models are trained for; 0 leaves them out.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The prompt with its images, for any guider or sampler."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, conditioning, degraded, reference=None, vae=None, strength=1.0) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(conditioning)
        images = {"degraded": degraded, "reference": reference}
        latents = [_latents(name, value, vae) for name, value in images.items() if value is not None]
        conditioning = node_helpers.conditioning_set_values(conditioning, {"reference_latents": latents}, append=True)
        conditioning = [
            [text, {**values, "model_conds": {**values.get("model_conds", {}), TILE: TileCond(None)}}]
            for text, values in conditioning
        ]
        if strength != 1:
            conditioning = comfy.hooks.set_hooks_for_conditioning(conditioning, strength_hook(strength))
        if _nothing_reads_images(nodes_of_run(cls)):
            say = "This graph seems to have no model that reads the photo: use Apply UMMF LoRA, or FLUX.1 Kontext."
            speaker(cls, logging.WARNING)(say)
        return io.NodeOutput(conditioning)


def _nothing_reads_images(nodes):
    """Whether the graph that runs has neither a UMMF LoRA nor a file of a model that reads images by itself, by its name."""
    files = (value.lower() for _kind, inputs in nodes.values() for value in inputs.values() if isinstance(value, str))
    reads = any(kind == "FluxIRApplyUMMFLoRA" for kind, _inputs in nodes.values())
    return bool(nodes) and not reads and not any(name in file for file in files for name in READERS)


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
            node_id="FluxIRApplyUMMFLoRA",
            display_name=LORA_NODE,
            category="FluxIR/conditioning",
            description="Teaches a FLUX model to read the images of UMMF Conditioning, with a LoRA made by `fluxir train ummf` or "
            "a public one of OminiControl.",
            search_aliases=["resflow", "ominicontrol", "omini", "condition lora", "load lora", "restore", "fluxir"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A FLUX model of the size the LoRA was made for, with or without other LoRAs and adapters.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A file in models/loras. The file says how it reads images; OminiControl's LoRAs are recognized by "
                    "their keys.",
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
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, lora_name, strength) -> io.NodeOutput:
        dims = flux_dimensions(native_flux(model, LORA_NODE))
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        try:
            loaded = load_lora(path)
        except WeightFileError as error:
            raise WeightFileError(f"{LORA_NODE}: {error}") from None
        if loaded.metadata.get("kind") == FEW_STEPS:
            raise WeightFileError(f"{LORA_NODE}: {lora_name} is a few-step LoRA, which reads no image; load it with Load LoRA.")
        try:
            check_lora_base(loaded, dims)
        except WeightFileError as error:
            raise WeightFileError(f"{LORA_NODE}: {lora_name}: {error}") from None
        logging.info("UMMF LoRA %s: %s; %s", lora_name, loaded.report, loaded.mode)
        lora = None
        if loaded.mode.tokens == "all":
            # Every token sees the same weights: core's own LoRA loader changes them, in a spelling that it reads.
            both: Any = comfy.sd.load_lora_for_models(model, None, diffusers_weights(loaded), strength, 0)
            model = both[0]
        else:
            model = model.clone()
            lora = make_managed(partial(LoRA, loaded.shapes, dims, ops=comfy.ops.manual_cast), loaded.state_dict)
            attach(model, KEY, lora)
        hooks = UMMFHooks(loaded.mode, lora.model if lora else None, strength, speaker(cls, logging.WARNING))
        for kind, hook in (
            (WrappersMP.DIFFUSION_MODEL, hooks.diffusion_model),
            (WrappersMP.PREPARE_SAMPLING, hooks.prepare_sampling),
        ):
            model.remove_wrappers_with_key(kind, KEY)  # one LoRA reads the images: the last
            model.add_wrapper_with_key(kind, KEY, hook)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, hooks.cleanup)
        return io.NodeOutput(model)
