"""The node that shows a photo before and after, in every canvas of ComfyUI."""

import comfy.model_management
import torch
from comfy_api.latest import io, ui

from ..fluxir_core.image.compare import VIEWS, before_after
from .inputs import given_planes
from .runtime import pil_to_image

NODE = "Before and After"


class BeforeAndAfter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRBeforeAndAfter",
            display_name=NODE,
            category="FluxIR/image",
            description="Shows what has changed: two images side by side, split in one, or enlarged where they differ most.",
            search_aliases=["compare images", "image compare", "before after", "side by side", "difference", "zoom", "fluxir"],
            is_output_node=True,
            inputs=[
                io.Image.Input("before", tooltip="The photo before: one for each, or one for all. It may have another size."),
                io.Image.Input("after", tooltip="The photo after."),
                io.Combo.Input(
                    "view",
                    options=list(VIEWS),
                    default="side by side",
                    tooltip="side by side: both whole. split: the left half before, the right half after. close-up: the place where "
                    "they differ most, enlarged.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="What the node shows, for Save Image.")],
        )

    @classmethod
    def execute(cls, before, after, view) -> io.NodeOutput:
        befores, afters = (given_planes(NODE, name, given) for name, given in (("before", before), ("after", after)))
        if len(before) not in (1, len(after)):
            raise ValueError(f"{NODE}: {len(before)} images before for {len(after)} after; give one for each, or one for all.")
        sheets = []
        for number, own in enumerate(afters):
            comfy.model_management.throw_exception_if_processing_interrupted()
            sheets.append(before_after(befores[number % len(befores)], own, view))
        images = torch.cat([pil_to_image(sheet) for sheet in sheets])
        return io.NodeOutput(images, ui=ui.PreviewImage(images))
