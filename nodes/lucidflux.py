"""Nodes that run LucidFlux, a trained restorer that people can download, on a FLUX.1-dev model."""

import logging
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import comfy.model_patcher
import folder_paths
import torch
from comfy_api.latest import io

from ..fluxir_core.flux.weight_files import WeightFileError
from ..fluxir_core.lucidflux.files import check_lucidflux_base, load_lucidflux
from ..fluxir_core.lucidflux.lora import load_branch_lora
from ..fluxir_core.lucidflux.model import LucidFlux
from ..fluxir_core.lucidflux.schedule import lucidflux_sigmas
from .beside_flux import check_span, make_managed, strength_inputs
from .inputs import checked_latent, given_planes
from .lucidflux_hooks import NODE, Images, LucidFluxHooks
from .native_flux import attention, flux_dimensions, native_flux
from .peft_lora import patch
from .runtime import speaking_for, to_planes

FOLDER = "model_patches"
LOAD_NODE, LORA_NODE = "Load LucidFlux", "Apply LucidFlux LoRA"
LucidFluxType = io.Custom("FLUXIR_LUCIDFLUX")


class NamedLucidFlux(NamedTuple):
    """A FLUXIR_LUCIDFLUX: `patcher.model` is the LucidFlux."""

    name: str
    patcher: comfy.model_patcher.ModelPatcher


class LoadLucidFlux(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRLoadLucidFlux",
            display_name=LOAD_NODE,
            category="FluxIR/LucidFlux",
            description="Loads LucidFlux, a trained restorer for FLUX.1-dev, from models/model_patches.",
            search_aliases=["lucidflux", "restore photo", "image restoration", "fluxir"],
            inputs=[
                io.Combo.Input(
                    "lucidflux_name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="lucidflux.pth of W2GenAI/LucidFlux, or the safetensors file that `fluxir convert` makes of it. "
                    "Put it in models/model_patches.",
                ),
            ],
            outputs=[LucidFluxType.Output(display_name="lucidflux", tooltip="For Apply LucidFlux.")],
        )

    @classmethod
    def execute(cls, lucidflux_name) -> io.NodeOutput:
        load = partial(load_lucidflux, folder_paths.get_full_path_or_raise(FOLDER, lucidflux_name))
        with speaking_for(LOAD_NODE):
            loaded = load()
        logging.info("LucidFlux %s: %s", lucidflux_name, loaded.report)
        return io.NodeOutput(NamedLucidFlux(lucidflux_name, make_managed(_network, loaded, load)))


def _network(loaded, **options):
    return LucidFlux(loaded.config, attention=attention, **options)


class ApplyLucidFluxLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRApplyLucidFluxLoRA",
            display_name=LORA_NODE,
            category="FluxIR/LucidFlux",
            description="Changes LucidFlux itself by a LoRA, such as LucidNFT's lora_condition.",
            search_aliases=["lucidnft", "lora_condition", "peft", "lucidflux", "fluxir"],
            inputs=[
                LucidFluxType.Input("lucidflux", tooltip="From Load LucidFlux."),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="adapter_model.safetensors of LucidNFT's lora_condition. Keep its folder with adapter_config.json, which "
                    "says how strong it is, below models/loras.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=-2.0, max=2.0, step=0.01, tooltip="1 is what the LoRA was trained for."
                ),
            ],
            outputs=[LucidFluxType.Output(display_name="lucidflux", tooltip="For Apply LucidFlux.")],
        )

    @classmethod
    def execute(cls, lucidflux, lora_name, strength) -> io.NodeOutput:
        with speaking_for(LORA_NODE):
            layers = load_branch_lora(folder_paths.get_full_path_or_raise("loras", lora_name))
        patcher = lucidflux.patcher.clone()
        if patch(patcher, layers, {module: f"{module}.weight" for module in layers}, strength) < len(layers):
            raise WeightFileError(
                f"{LORA_NODE}: {lora_name} changes parts that {lucidflux.name} lacks; choose the LoRA made for it."
            )
        return io.NodeOutput(lucidflux._replace(patcher=patcher))


class ApplyLucidFlux(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRApplyLucidFlux",
            display_name=NODE,
            category="FluxIR/LucidFlux",
            description="Makes FLUX.1-dev restore a photo: noise, blur, compression, low resolution and others at once.",
            search_aliases=["lucidflux", "restore", "upscale", "super resolution", "deblur", "denoise photo", "fluxir"],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.1-dev in any precision, with or without LoRAs and other adapters."),
                LucidFluxType.Input("lucidflux", tooltip="From Load LucidFlux."),
                io.Image.Input(
                    "degraded",
                    tooltip="The photo to restore: one, or one for each image of the sampled batch. It is brought to the sampled "
                    "size.",
                ),
                io.Image.Input(
                    "cleaned",
                    tooltip="What a degradation remover makes of the photo: LucidFlux was trained with DiffBIR's "
                    "general_swinir_v1.ckpt, by Upscale Image (using Model).",
                ),
                io.MultiType.Input(
                    "clip_vision",
                    [io.ClipVision, io.ClipVisionOutput],
                    tooltip="SigLIP 2 so400m patch16-512, from Load CLIP Vision; or what CLIP Vision Encode makes of the cleaned "
                    "image, with crop none.",
                ),
                *strength_inputs(
                    "LucidFlux", "How much the images steer the model. 1 is what LucidFlux was trained for; 0 is the bare model."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The restoring model, for any sampler or guider.")],
        )

    @classmethod
    def execute(cls, model, lucidflux, degraded, cleaned, clip_vision, strength, start_percent, end_percent) -> io.NodeOutput:
        network, base = lucidflux.patcher.model, flux_dimensions(native_flux(model, NODE))
        with speaking_for(NODE):
            check_lucidflux_base(network.config, base)
        check_span(NODE, "LucidFlux", start_percent, end_percent)
        model = model.clone()
        if strength != 0:
            given = {"degraded": degraded, "cleaned": cleaned}
            degraded_planes, cleaned_planes = (given_planes(NODE, name, image).cpu() for name, image in given.items())
            images = Images(degraded_planes, cleaned_planes, _features(clip_vision, cleaned, network.config.features))
            # Semantic tokens are of one image: the last node decides.
            LucidFluxHooks(images, lucidflux.patcher, strength, start_percent, end_percent).apply(model, alone=True)
        return io.NodeOutput(model)


def _features(clip_vision, cleaned, width):
    """The image encoder's last hidden state (B, M, width) of the cleaned image, on the CPU."""
    if hasattr(clip_vision, "encode_image"):
        side = clip_vision.image_size
        if side > 0:
            # To its square with bilinear weights, as LucidFlux was trained; core would take bicubic ones.
            image = torch.nn.functional.interpolate(to_planes(cleaned).cpu(), (side, side), mode="bilinear", antialias=True)
            cleaned = image.movedim(1, -1)
        clip_vision = clip_vision.encode_image(cleaned, crop=False)
    features = clip_vision["last_hidden_state"].float().cpu()
    if features.ndim != 3 or features.shape[-1] != width:
        raise ValueError(
            f"{NODE}: the CLIP vision model gives {features.shape[-1]} values a token, but LucidFlux needs {width}; load SigLIP 2 "
            "so400m patch16-512 with Load CLIP Vision."
        )
    return features


class LucidFluxSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRLucidFluxSigmas",
            display_name="LucidFlux Sigmas",
            category="FluxIR/LucidFlux",
            description="The steps that LucidFlux's authors sample with: more of them at low noise than FLUX's own.",
            search_aliases=["scheduler", "sigmas", "lucidflux", "steps", "fluxir"],
            inputs=[
                io.Latent.Input("latent", tooltip="What is sampled: its size decides how the steps are spread."),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="The authors take 20 to 50."),
            ],
            outputs=[
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="For SamplerCustomAdvanced with euler, or TTS Sampler (test-time search)."
                )
            ],
        )

    @classmethod
    def execute(cls, latent, steps) -> io.NodeOutput:
        samples = latent["samples"]
        channels = 4 if list(samples.shape[1:2]) == [4] else 16  # core's Empty Latent Image has 4, which samplers change
        latents = SimpleNamespace(latent_channels=channels, latent_dimensions=2)
        height, width = checked_latent("LucidFlux Sigmas", "latent", samples, latents, "FLUX.1's").shape[-2:]
        return io.NodeOutput(lucidflux_sigmas(steps, 8 * height, 8 * width))
