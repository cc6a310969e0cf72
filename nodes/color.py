"""The node that gives a restored image the colors of its degraded input."""

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..fluxir_core.image.color import METHODS, check_pair, match_color
from .inputs import checked_image

NODE = "Color Match"
COPIES = 12
"""Images of one size that matching holds at a time, about: what is asked of ComfyUI's memory management."""


class MatchColor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRMatchColor",
            display_name=NODE,
            category="FluxIR/image",
            description="Gives a restored image the colors of its degraded input and keeps its details.",
            search_aliases=[
                "color",
                "color match",
                "color correction",
                "color fix",
                "color transfer",
                "color shift",
                "color",
                "wavelet",
                "adain",
                "fluxir",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The restored images. Alpha is kept."),
                io.Image.Input(
                    "reference",
                    tooltip="The right colors: the degraded input, of any size. One for each image, or one for all.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="wavelet",
                    tooltip="wavelet: follows color casts that differ from place to place. adain: matches the mean and contrast of "
                    "red, green and blue. lab: the same for lightness and color. adain and lab change the whole image alike.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 leaves the image as it is, 1 matches it fully.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The images with matched colors, not rounded to 8 bits.")],
        )

    @classmethod
    def execute(cls, image, reference, method, strength) -> io.NodeOutput:
        management, device = comfy.model_management, comfy.model_management.get_torch_device()
        checked_image(NODE, "image", image)
        checked_image(NODE, "reference", reference)
        planes, references = image.float().movedim(-1, 1), reference.float().movedim(-1, 1)
        try:
            check_pair(planes, references)
            management.free_memory(COPIES * planes[0].nbytes, device)
            progress, matched = comfy.utils.ProgressBar(len(planes)), []
            for number, plane in enumerate(planes):  # one by one: a video need not fit into the device's memory
                management.throw_exception_if_processing_interrupted()
                colors = references[number % len(references)]
                matched.append(match_color(plane[None].to(device), colors[None].to(device), method, strength).cpu())
                progress.update(1)
        except ValueError as error:
            raise ValueError(f"{NODE}: {error}") from None
        return io.NodeOutput(torch.cat(matched).movedim(1, -1).contiguous())
