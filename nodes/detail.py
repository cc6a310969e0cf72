"""The node that gives a restored photo back what the VAE could not hold."""

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..fluxir_core.image.lost_detail import give_back_detail
from ..fluxir_core.image.padding import crop_back
from .inputs import checked_image
from .photo import decode, encode
from .runtime import to_planes

DETAIL_NODE = "Give Back Detail"


class GiveBackDetail(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRGiveBackDetail",
            display_name=DETAIL_NODE,
            category="FluxIR/image",
            description="Gives a restored photo back the fine detail that the VAE could not hold, such as small text and the "
            "grain of a face. Noise and what was too dark are left out.",
            search_aliases=["detail", "texture", "sharpen", "small text", "vae loss", "faithful", "fluxir"],
            inputs=[
                io.Image.Input("restored", tooltip="The restored images."),
                io.Image.Input("degraded", tooltip="The photos they were made of, of the same size: one for each, or one for all."),
                io.Vae.Input("vae", tooltip="The VAE that the restored images were decoded with."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 leaves the restored images as they are, 1 gives back all that can be trusted.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The restored images with their detail. Alpha is kept.")],
        )

    @classmethod
    def execute(cls, restored, degraded, vae, strength) -> io.NodeOutput:
        checked_image(DETAIL_NODE, "restored", restored)
        checked_image(DETAIL_NODE, "degraded", degraded)
        if len(degraded) not in (1, len(restored)) or degraded.shape[1:3] != restored.shape[1:3]:
            raise ValueError(
                f"{DETAIL_NODE}: {len(degraded)} degraded images of {degraded.shape[2]} x {degraded.shape[1]} pixels for "
                f"{len(restored)} restored ones of {restored.shape[2]} x {restored.shape[1]}; give one for each or one for all, "
                "of the same size."
            )
        if strength == 0:
            return io.NodeOutput(restored)
        progress, found, decoded = comfy.utils.ProgressBar(len(restored)), [], None
        for number, image in enumerate(to_planes(restored)):  # one by one: a video need not fit into memory
            comfy.model_management.throw_exception_if_processing_interrupted()
            own = to_planes(degraded[number % len(degraded)][None])
            if decoded is None or len(degraded) > 1:
                decoded = crop_back(decode(vae, encode(vae, own)), own.shape[-2:]).to(own)
            try:
                found.append(give_back_detail(image[None], own, decoded, strength))
            except ValueError as error:
                raise ValueError(f"{DETAIL_NODE}: {error}") from None
            progress.update(1)
        images = torch.cat(found).movedim(1, -1)
        return io.NodeOutput(torch.cat([images, restored[..., 3:].to(images)], -1).contiguous())
