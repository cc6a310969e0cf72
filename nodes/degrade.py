"""A node that spoils good pictures, for before/after graphs and data sets."""

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..fluxir_core.degrade.picture import check
from ..fluxir_core.degrade.tasks import TASKS
from .inputs import given_planes


class DegradeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DegradeImage",
            display_name="Degrade Image",
            category="FluxIR/data",
            description="Spoils a picture in a known way: blur, noise, darkness, water, rain, snow, fewer pixels, or many.",
            search_aliases=["add noise", "blur", "low quality", "real-esrgan", "dataset", "rain", "underwater", "fluxir"],
            inputs=[
                io.Image.Input("image", tooltip="The good picture, or a batch. An alpha channel is passed on as it is."),
                io.Combo.Input(
                    "degradation",
                    options=list(TASKS),
                    default="Real-ESRGAN",
                    tooltip="What happens to the picture. Real-ESRGAN is blur, resizing, noise and JPEG, twice, at random.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of it: 0 leaves the picture exactly as it is, 1 is the most.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Draws everything that is random. Picture i of a batch, counted from 0, gets seed + i.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The degraded picture, of the same size.")],
        )

    @classmethod
    def execute(cls, image, degradation, strength, seed) -> io.NodeOutput:
        planes, seeds = given_planes("Degrade Image", "image", image, finite=False), range(seed, seed + len(image))
        try:
            check(planes, strength, seeds)
        except ValueError as error:
            raise ValueError(f"Degrade Image: {error}") from None
        device, progress, degraded = comfy.model_management.get_torch_device(), comfy.utils.ProgressBar(len(image)), []
        for number in seeds:  # one at a time, so that a batch needs no more memory and can be interrupted
            comfy.model_management.throw_exception_if_processing_interrupted()
            picture = planes[len(degraded)][None].to(device)
            degraded.append(TASKS[degradation](picture, strength, [number]).to(image))
            progress.update(1)
        return io.NodeOutput(torch.cat([torch.cat(degraded).movedim(1, -1), image[..., 3:]], -1))
