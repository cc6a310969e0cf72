"""A node that degrades good images, for before/after graphs and data sets."""

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..fluxir_core.degrade.image import check
from ..fluxir_core.degrade.tasks import TASKS
from ..fluxir_core.image.pixels import luma
from .inputs import given_planes
from .runtime import in_name_of


class DegradeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRDegradeImage",
            display_name="Degrade Image",
            category="FluxIR/data",
            description="Makes a good image worse in a known way: blur, noise, darkness, water, rain, snow, low resolution or a mix.",
            search_aliases=[
                "add noise",
                "blur",
                "low quality",
                "low light",
                "jpeg",
                "real-esrgan",
                "dataset",
                "rain",
                "snow",
                "underwater",
                "fluxir",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The good image, or a batch. Alpha is kept."),
                io.Combo.Input(
                    "degradation",
                    options=list(TASKS),
                    default="Real-ESRGAN",
                    tooltip="What happens to the image. Real-ESRGAN is blur, resizing, noise and JPEG, twice, at random.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How strong it is: 0 leaves the image exactly as it is, 1 is the most.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Decides everything that is random. Image i of a batch, counted from 0, uses seed + i.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The degraded image, at the same size.")],
        )

    @classmethod
    def execute(cls, image, degradation, strength, seed) -> io.NodeOutput:
        planes, seeds = given_planes("Degrade Image", "image", image, finite=False), range(seed, seed + len(image))
        try:
            check(planes, strength, seeds)
        except ValueError as error:
            raise in_name_of("Degrade Image", error) from None
        if strength == 0:
            return io.NodeOutput(image)
        device, progress, degraded = comfy.model_management.get_torch_device(), comfy.utils.ProgressBar(len(image)), []
        for number in seeds:  # one at a time, so that a batch needs no more memory and can be interrupted
            comfy.model_management.throw_exception_if_processing_interrupted()
            good = planes[len(degraded)][None].to(device)
            degraded.append(TASKS[degradation](good, strength, [number]).to(image))
            progress.update(1)
        found = torch.cat(degraded)
        found = luma(found) if image.shape[-1] == 1 else found
        return io.NodeOutput(torch.cat([found.movedim(1, -1), image[..., 3:]], -1))
