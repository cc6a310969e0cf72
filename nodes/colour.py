"""The node that gives a restored picture the colours of its degraded input."""

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..fluxir_core.image.colour import METHODS, check_pair, match_colour
from .inputs import checked_image

NODE = "Match Colour"
COPIES = 12
"""Pictures of one size that matching holds at a time, about: what is asked of ComfyUI's memory management."""


class MatchColour(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MatchColour",
            display_name=NODE,
            category="FluxIR/image",
            description="Gives a restored picture the colours of its degraded input and keeps its details.",
            search_aliases=["color match", "color fix", "color transfer", "color shift", "wavelet", "adain", "fluxir"],
            inputs=[
                io.Image.Input("image", tooltip="The restored pictures. Alpha, a fourth channel, is carried through."),
                io.Image.Input(
                    "reference",
                    tooltip="The right colours: the degraded input, of any size; one for each picture, or one for all.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="wavelet",
                    tooltip="Wavelet follows casts that differ from place to place. Adain matches mean and contrast of red, "
                    "green and blue; lab of lightness and the two colour axes. These two change all places alike.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 leaves the picture as it is, 1 matches it fully; linear in between.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The pictures with matched colours, in float.")],
        )

    @classmethod
    def execute(cls, image, reference, method, strength) -> io.NodeOutput:
        management, device = comfy.model_management, comfy.model_management.get_torch_device()
        checked_image(NODE, "image", image)
        checked_image(NODE, "reference", reference)
        pictures, references = image.float().movedim(-1, 1), reference.float().movedim(-1, 1)
        try:
            check_pair(pictures, references)
            management.free_memory(COPIES * pictures[0].nbytes, device)
            progress, matched = comfy.utils.ProgressBar(len(pictures)), []
            for number, picture in enumerate(pictures):  # one by one: a video need not fit into the device's memory
                management.throw_exception_if_processing_interrupted()
                colours = references[number % len(references)]
                matched.append(match_colour(picture[None].to(device), colours[None].to(device), method, strength).cpu())
                progress.update(1)
        except ValueError as error:
            raise ValueError(f"{NODE}: {error}") from None
        return io.NodeOutput(torch.cat(matched).movedim(1, -1).contiguous())
