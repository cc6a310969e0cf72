"""Nodes for what a restoration adds to its input: a slider that holds it back, and a map that shows it."""

import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch
from comfy_api.latest import io

from ..fluxir_core.flow.fidelity_guidance import fidelity_guidance
from ..fluxir_core.image.invented_detail import heat_map, invented_detail
from .degraded_latent import as_rows, in_model_space
from .inputs import given_planes

FIDELITY_NODE = "Restoration Fidelity"
DETAIL_NODE = "Invented Detail"
COPIES = 60
"""Float copies of one image that its map takes at a time, about: what is asked of ComfyUI's memory management."""


class RestorationFidelity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRRestorationFidelity",
            display_name=FIDELITY_NODE,
            category="FluxIR",
            description="Keeps the restored image close to the degraded one: one slider, from a free restoration to the "
            "degraded image itself.",
            search_aliases=["restoration guidance", "faithful", "hallucination", "creativity", "keep original", "supir", "fluxir"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The restoring model, for example from Apply FluxIR Adapter. Any flow-matching model."
                ),
                io.Latent.Input(
                    "degraded",
                    tooltip="The degraded image from VAE Encode: one for the whole batch, or one for each sampled image. "
                    "The sampled latent must have the same size.",
                ),
                io.Float.Input(
                    "fidelity",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0: the model restores freely. 1: it gives the degraded image back. In between: the higher, the "
                    "closer to the degraded image.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model, for any sampler or guider.")],
        )

    @classmethod
    def execute(cls, model, degraded, fidelity) -> io.NodeOutput:
        if not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
            raise ValueError(
                f"{FIDELITY_NODE}: the model is of another kind than flow matching; use a flow-matching model such as FLUX, SD3.5 or "
                "Qwen-Image."
            )
        lq = in_model_space(model, degraded, FIDELITY_NODE)
        model = model.clone()

        def draw(args):
            clean = args["denoised"]
            rows = as_rows(lq, clean, len(clean), FIDELITY_NODE)
            return fidelity_guidance(clean, rows, args["sigma"].to(clean), fidelity)

        if fidelity != 0:
            model.set_model_sampler_post_cfg_function(draw)
        return io.NodeOutput(model)


class InventedDetail(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRInventedDetail",
            display_name=DETAIL_NODE,
            category="FluxIR/image",
            description="Shows where a restored image has detail that the degraded one gives no evidence for.",
            search_aliases=["hallucination map", "heat map", "difference", "faithful", "evidence", "fluxir"],
            inputs=[
                io.Image.Input("restored", tooltip="The restored images."),
                io.Image.Input("degraded", tooltip="The degraded images, of any size: one for each, or one for all."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="map", tooltip="The restored image in dim gray, with invented detail in red, yellow and white."
                ),
                io.Mask.Output(display_name="mask", tooltip="How much of the local detail is invented: 0 none, 1 all."),
            ],
        )

    @classmethod
    def execute(cls, restored, degraded) -> io.NodeOutput:
        management, device = comfy.model_management, comfy.model_management.get_torch_device()
        images, inputs = given_planes(DETAIL_NODE, "restored", restored), given_planes(DETAIL_NODE, "degraded", degraded)
        if len(degraded) not in (1, len(restored)):
            raise ValueError(
                f"{DETAIL_NODE}: {len(degraded)} degraded images for {len(restored)} restored ones; give one for each, or "
                "one for all."
            )
        management.free_memory(COPIES * images[0].nbytes, device)
        progress, maps, masks = comfy.utils.ProgressBar(len(images)), [], []
        for number, image in enumerate(images):  # one by one: a video need not fit into the device's memory
            management.throw_exception_if_processing_interrupted()
            image, given = image[None].to(device), inputs[number % len(inputs)][None].to(device)
            try:
                share = invented_detail(image, given)
            except ValueError as error:
                raise ValueError(f"{DETAIL_NODE}: image {number + 1}: {error}") from None
            maps.append(heat_map(share, image).cpu())
            masks.append(share[:, 0].cpu())
            progress.update(1)
        return io.NodeOutput(torch.cat(maps).movedim(1, -1).contiguous(), torch.cat(masks))
