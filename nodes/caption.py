"""Nodes that describe images for a prompt, and that drop the description where the described image is unusable."""

import logging
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch.nn import functional as F

from ..fluxir_core.caption import MOST_TOKENS, Captioner
from ..fluxir_core.image.pixels import luma
from ..fluxir_core.verify.removal_check import removal_check
from .folders import CAPTIONERS
from .inputs import checked_image, given_planes
from .runtime import answer, in_name_of, load_whole, make_patcher, to_planes

CATEGORY = "FluxIR/conditioning"
QWEN_FOLDER = "Qwen2.5-VL-7B-Instruct"


def _folders():
    """{name: path} of the folders in models/fluxir_captioners, the public one first, whether it is there or not."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(CAPTIONERS)]
    entries = [entry for root in reversed(roots) if root.is_dir() for entry in sorted(root.iterdir()) if entry.is_dir()]
    return {QWEN_FOLDER: roots[0] / QWEN_FOLDER} | {entry.name: entry for entry in entries}


def _findings(degraded, cleaned):
    degraded, cleaned = (
        given_planes("Degradation Check", name, images, finite=False)
        for name, images in (("degraded", degraded), ("cleaned", cleaned))
    )
    if len(cleaned) != len(degraded):
        raise ValueError(f"Degradation Check: {len(cleaned)} cleaned images for {len(degraded)} degraded ones; give one for each.")
    findings = []
    try:
        for images in zip(cleaned.split(1), degraded.split(1)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            findings += removal_check(*images)
    except ValueError as error:
        raise in_name_of("Degradation Check", error) from None
    return findings


def _replaced(cleaned, degraded, usable):
    """IMAGE `cleaned` with the degraded image, at its size and in its channels, in place of each that is not `usable`; one whose
    degraded image holds NaN stays, because there is nothing better."""
    spare = F.interpolate(to_planes(degraded), cleaned.shape[1:3], mode="bicubic", antialias=True).clamp(0, 1)
    spare = (luma(spare) if cleaned.shape[-1] == 1 else spare).movedim(1, -1).to(cleaned)
    spare = torch.cat([spare, cleaned[..., 3:]], -1)
    keep = torch.tensor(usable) | ~spare.isfinite().flatten(1).all(1).cpu()
    return cleaned if keep.all() else torch.where(keep[:, None, None, None].to(cleaned.device), cleaned, spare)


def _report(findings):
    lines = []
    for number, finding in enumerate(findings, 1):
        verdict = "usable" if finding.usable else f"not usable, because {' and '.join(finding.reasons)}"
        values = ", ".join(f"{name} {value:.2f}" for name, value in finding.measured.items())
        lines.append(f"image {number}: {verdict}" + (f" ({values})" if values else ""))
    return "\n".join(lines)


class DegradationCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRDegradationCheck",
            display_name="Degradation Check",
            category=CATEGORY,
            description="Checks whether a cleaned image still shows what the degraded one shows, and drops its caption if not.",
            search_aliases=["degradation remover", "cleaning model", "swinir", "caption", "is usable", "fluxir"],
            inputs=[
                io.Image.Input("degraded", tooltip="The degraded image, or a batch of them."),
                io.Image.Input("cleaned", tooltip="What a cleaning model made of it, for example in Upscale Image (using Model)."),
                io.String.Input(
                    "caption",
                    optional=True,
                    lazy=True,
                    force_input=True,
                    tooltip="A description of the cleaned image. The node it comes from runs only if the check passes.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="cleaned",
                    tooltip="The cleaned image. One that fails is replaced by the degraded image, at the same size.",
                ),
                io.String.Output(display_name="caption", tooltip="The caption; empty if an image fails."),
                io.Boolean.Output(display_name="usable", tooltip="Whether every image of the batch passes."),
                io.String.Output(display_name="report", tooltip="What was measured for each image, and why it fails."),
            ],
        )

    @classmethod
    def check_lazy_status(cls, degraded, cleaned, **lazy):
        # A caption that is connected and not made yet is None here; one that is not connected is absent.
        wanted = "caption" in lazy and lazy["caption"] is None
        return ["caption"] if wanted and all(finding.usable for finding in _findings(degraded, cleaned)) else []

    @classmethod
    def execute(cls, degraded, cleaned, caption=None) -> io.NodeOutput:
        findings = _findings(degraded, cleaned)
        report = _report(findings)
        usable = all(finding.usable for finding in findings)
        if not usable:
            failed = [line for line, finding in zip(report.splitlines(), findings) if not finding.usable]
            logging.warning("Degradation Check: %s. There is no caption.", "; ".join(failed))
            cleaned = _replaced(cleaned, degraded, [finding.usable for finding in findings])
        return io.NodeOutput(cleaned, (caption or "") if usable else "", usable, report, ui=answer(report))


class CaptionImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRCaptionImage",
            display_name="Caption Image (Qwen2.5-VL)",
            category=CATEGORY,
            description="Describes an image in one paragraph, as a prompt for restoring it.",
            search_aliases=["caption", "describe image", "image to text", "vlm", "qwen", "fluxir"],
            inputs=[
                io.Image.Input("image", tooltip="The image to describe, best after cleaning. One image, not a batch."),
                io.Combo.Input(
                    "model",
                    options=list(_folders()),
                    tooltip="A folder in models/fluxir_captioners with all files of Qwen/Qwen2.5-VL-7B-Instruct.",
                ),
            ],
            outputs=[io.String.Output(display_name="caption", tooltip="For a text encoder or Degradation Check.")],
        )

    @classmethod
    def execute(cls, image, model) -> io.NodeOutput:
        checked_image("Caption Image", "image", image)
        if len(image) != 1:
            raise ValueError(f"Caption Image: {len(image)} images; give one, because a prompt describes one image.")
        images, progress = given_planes("Caption Image", "image", image), comfy.utils.ProgressBar(MOST_TOKENS)

        def on_token():
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update(1)

        try:
            captioner = Captioner(_folders()[model])
            if not captioner.knows(images):
                patcher = make_patcher(captioner.module)  # held until the caption is made
                load_whole([patcher])
            (caption,) = captioner(images, on_token)
        except (ValueError, ImportError) as error:
            raise in_name_of("Caption Image", error) from None
        return io.NodeOutput(caption, ui=answer(caption))
