"""Nodes for drift: edit models slide the image by a few pixels, which is measured, moved back, and a score."""

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..fluxir_core.image.align import measure_drift, move_back
from ..fluxir_core.verify.drift import Drift
from ..fluxir_core.verify.ensemble import Ensemble
from .inputs import checked_image
from .runtime import answer, to_planes
from .verifiers import LoadedVerifier, Verifier

NODE = "Align to Input"
COPIES = 40
"""Float32 copies of one image that measuring takes at a time, about: what is asked of ComfyUI's memory management."""


class AlignToInput(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRAlignToInput",
            display_name=NODE,
            category="FluxIR/image",
            description="Moves a restored image back onto its input: edit models such as Kontext slide and enlarge it by a few pixels.",
            search_aliases=["pixel shift", "register", "drift", "offset", "align images", "kontext", "qwen edit", "zoom", "fluxir"],
            inputs=[
                io.Image.Input("restored", tooltip="The restored images."),
                io.Image.Input("degraded", tooltip="The degraded images, of any size: one for each, or one for all."),
                io.Boolean.Input(
                    "correct_scale",
                    default=True,
                    tooltip="On: an image that was also enlarged or shrunk, by up to a few percent, is brought back. Off: a shift "
                    "alone.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The restored images, where the input has everything."),
                io.Float.Output(
                    display_name="drift",
                    tooltip="How many pixels the points of the image had moved: root mean square, of the worst.",
                ),
            ],
        )

    @classmethod
    def execute(cls, restored, degraded, correct_scale) -> io.NodeOutput:
        management, device = comfy.model_management, comfy.model_management.get_torch_device()
        restored, degraded = checked_image(NODE, "restored", restored), checked_image(NODE, "degraded", degraded)
        if len(degraded) not in (1, len(restored)):
            raise ValueError(
                f"{NODE}: {len(degraded)} degraded images for {len(restored)} restored ones; give one for each, or one for all."
            )
        management.free_memory(COPIES * restored[:1].numel() * 4, device)
        progress, moved, drifts = comfy.utils.ProgressBar(len(restored)), [], []
        for number in range(len(restored)):  # one by one: a video need not fit into the device's memory
            management.throw_exception_if_processing_interrupted()
            image = restored[number : number + 1].to(device)
            given = to_planes(degraded[number % len(degraded)][None])[0].to(device)
            try:
                drift = measure_drift(to_planes(image)[0], given, correct_scale)
            except ValueError as error:
                raise ValueError(f"{NODE}: image {number + 1}: {error}") from None
            moved.append(move_back(image.movedim(-1, 1), drift).movedim(1, -1).cpu())
            drifts.append(drift)
            progress.update(1)
        distances = [drift.pixels(*restored.shape[1:3]) for drift in drifts]
        said = "\n".join(f"{d.right:+.2f} right, {d.down:+.2f} down, {100 * (d.scale - 1):+.2f} %" for d in drifts)
        return io.NodeOutput(torch.cat(moved).contiguous(), max(distances), ui=answer(said))


class DriftVerifier(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRDriftVerifier",
            display_name="Drift Verifier",
            category="FluxIR/search",
            description="Judges how little an image has slid against its input, for edit models. For an ensemble with others.",
            search_aliases=["verifier", "pixel shift", "alignment", "kontext", "fluxir"],
            inputs=[],
            outputs=[
                Verifier.Output(
                    display_name="verifier", tooltip="For a Verifier Ensemble. It needs the degraded image where it judges."
                )
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(LoadedVerifier(Ensemble((Drift(),), name="drift")))
