"""The node that measures restored images."""

import json
import math

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ..fluxir_core.verify.evaluation import Evaluation, markdown
from .inputs import checked_image
from .runtime import answer, make_patcher, to_planes


class EvaluateRestoration(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIREvaluateRestoration",
            display_name="Evaluate Restoration",
            category="FluxIR/image",
            description="Measures restored images: alone, against the degraded ones and against the originals.",
            search_aliases=["compare quality", "image quality", "psnr", "ssim", "lpips", "musiq", "metrics", "benchmark", "fluxir"],
            is_output_node=True,
            inputs=[
                io.Image.Input("restored", tooltip="The restored images."),
                io.Image.Input(
                    "degraded",
                    optional=True,
                    tooltip="The degraded images, of any size: one for each, or one for all. Adds closeness and drift.",
                ),
                io.Image.Input(
                    "original",
                    optional=True,
                    tooltip="The undamaged images, as large as the restored ones: one for each, or one for all. Adds PSNR, SSIM and GMSD.",
                ),
                io.String.Input(
                    "metrics",
                    default="",
                    tooltip="More metrics of the library pyiqa, by name, with commas between: lpips, maniqa, clipiqa+, musiq. "
                    "A metric whose weights are not on disk is named and skipped. Empty: only metrics that need no weights.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="The values, or their means, as a Markdown table."),
                io.String.Output(display_name="values", tooltip="Every image's values and what is skipped, as JSON."),
            ],
        )

    @classmethod
    def execute(cls, restored, metrics="", degraded=None, original=None) -> io.NodeOutput:
        management, device = comfy.model_management, comfy.model_management.get_torch_device()
        names = dict.fromkeys(filter(None, (name.strip() for name in metrics.split(","))))
        partners = {"degraded": degraded, "original": original}
        for which, given in {"restored": restored, **partners}.items():
            if given is not None:
                checked_image("Evaluate Restoration", which, given, finite=False)
        for which, given in partners.items():
            if given is not None and len(given) not in (1, len(restored)):
                raise ValueError(
                    f"Evaluate Restoration: {len(given)} {which} images for {len(restored)} restored ones; "
                    "give one for each, or one for all."
                )
        try:
            evaluation = Evaluation(names, original is not None)
            patchers = [make_patcher(metric.module) for metric in evaluation.metrics.values()]  # held until all is measured
            management.load_models_gpu(patchers)
            progress, rows = comfy.utils.ProgressBar(len(restored)), []
            for number in range(len(restored)):
                management.throw_exception_if_processing_interrupted()
                rows.append(evaluation(*(_image(given, number, device) for given in (restored, *partners.values()))))
                progress.update(1)
        except ValueError as error:
            raise ValueError(f"Evaluate Restoration: {error}") from None
        table = markdown(rows, evaluation)
        values = [{name: None if math.isnan(value) else value for name, value in row.items()} for row in rows]
        report = json.dumps({"values": values, "skipped": evaluation.skipped})
        return io.NodeOutput(table, report, ui=answer(plain(table)))


def plain(table):
    """A Markdown table with columns in place of its frame: the node shows text as it stands, in letters of one width."""
    lines = [line for line in table.splitlines() if line.strip("-:| ")]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    cells = [row for row, line in zip(rows, lines) if line.startswith("|")]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "  ".join(map(str.ljust, row, widths)).rstrip() if line.startswith("|") else line for row, line in zip(rows, lines)
    )


def _image(images, number, device):
    """Image `number` of IMAGE `images`, or its only one, as (3, H, W) on `device`; None for None."""
    return None if images is None else to_planes(images[number % len(images)][None])[0].to(device)
