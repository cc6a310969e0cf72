"""Nodes that make data to train on: choosing generated images, and saving pairs as shards."""

from itertools import count
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ..fluxir_core.data.shards import NewShard
from ..fluxir_core.image.files import png_bytes
from ..fluxir_core.image.montage import contact_sheet
from ..fluxir_core.verify.artist import verifiers_scores
from ..fluxir_core.verify.selection import KEEP, reasons, select, table
from .inputs import given_planes
from .runtime import in_name_of
from .verifiers import Verifier

CATEGORY = "FluxIR/data"


class SelectImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRSelectImages",
            display_name="Select Images (FluxGen)",
            category=CATEGORY,
            description="Keeps the images of a batch that no metric ranks among its worst, and says why the others are dropped.",
            search_aliases=["filter images", "quality", "dataset", "musiq", "maniqa", "clip-iqa", "fluxgen", "fluxir"],
            inputs=[
                io.Image.Input("images", tooltip="The images to choose from, as one batch: the more, the better."),
                Verifier.Input("verifier", tooltip="What judges them: Natural Image Verifier, or an ensemble of PyIQA Verifiers."),
                io.Float.Input(
                    "keep",
                    default=KEEP,
                    min=0.05,
                    max=1.0,
                    step=0.01,
                    tooltip="The share that each metric keeps on its own. FluxGen uses 0.95; 1 drops only images without a score.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="kept", tooltip="The images that every metric keeps."),
                io.Image.Output(
                    display_name="dropped", tooltip="The others. If there are none, the nodes behind this output do not run."
                ),
                io.Image.Output(
                    display_name="contact_sheet", tooltip="All images: the kept ones framed, the others with the reason."
                ),
                io.String.Output(
                    display_name="table",
                    tooltip="For each image its scores, whether it is kept, and which metrics drop it, as CSV.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images, verifier, keep) -> io.NodeOutput:
        planes = given_planes("Select Images", "images", images, finite=False)
        progress, rows = comfy.utils.ProgressBar(len(images)), []
        for image in planes.split(1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                scores = verifiers_scores(verifier.measure(image))
            except ValueError as error:
                raise in_name_of("Select Images", error) from None
            finally:
                verifier.ensemble.forget()
            rows.append({name: float(values[0]) for name, values in scores.items()})
            progress.update(1)
        scores = {name: [row[name] for row in rows] for name in rows[0]}
        try:
            selection = select(scores, keep)
        except ValueError as error:
            raise ValueError(f"Select Images: {error}") from None
        kept, dropped = ([n for n, by in enumerate(selection.dropped_by) if bool(by) == out] for out in (False, True))
        if not kept:
            raise ValueError(
                f"Select Images: none of {len(images)} images is above the limits of all metrics; raise keep from "
                f"{keep:g} or give more images."
            )
        why = [f"{n + 1}: {reasons(rows[n], selection, by) or 'kept'}" for n, by in enumerate(selection.dropped_by)]
        sheet = contact_sheet([[image.nan_to_num(0)] for image in planes], why, chosen=kept)
        return io.NodeOutput(
            images[kept],
            images[dropped] if dropped else ExecutionBlocker(None),
            torch.from_numpy(np.asarray(sheet, np.float32) / 255)[None],
            table(range(1, len(images) + 1), scores, selection),
        )


class SaveImagePairs(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRSaveImagePairs",
            display_name="Save Image Pairs (FluxGen)",
            category=CATEGORY,
            description="Saves good and degraded images as pairs to train on, in a tar file (WebDataset). Every run adds one.",
            search_aliases=["dataset", "webdataset", "tar", "training data", "shard", "fluxgen", "fluxir"],
            is_output_node=True,
            inputs=[
                io.Image.Input("good", tooltip="The good images. Alpha is left out."),
                io.Image.Input("degraded", tooltip="The degraded version of each, at the same size."),
                io.String.Input(
                    "filename_prefix",
                    default="fluxgen/pairs",
                    tooltip="Folder and start of the file name inside ComfyUI's output folder; a number follows.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the images show, for training with text. Empty: training without text.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The tar file that was written.")],
        )

    @classmethod
    def execute(cls, good, degraded, filename_prefix, prompt="") -> io.NodeOutput:
        given = {"good": good, "degraded": degraded}
        pairs = [given_planes("Save Image Pairs", name, images) for name, images in given.items()]
        if pairs[0].shape != pairs[1].shape:
            good, degraded = (f"{len(planes)} of {planes.shape[3]} x {planes.shape[2]}" for planes in pairs)
            raise ValueError(
                f"Save Image Pairs: the good images are {good}, the degraded {degraded}; give one for each, at the same size."
            )
        height, width = good.shape[1:3]
        if not filename_prefix.strip() or filename_prefix.rstrip().endswith(("/", "\\")):
            filename_prefix += "pairs"
        try:
            if "\0" in filename_prefix:
                raise ValueError("no path holds it")
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix.strip(), folder_paths.get_output_directory(), width, height
            )
        except Exception:  # core's own for a place outside, and whatever the system makes of the name
            raise ValueError(
                f"Save Image Pairs: filename_prefix is {filename_prefix[:60]!r}, which leads to no place in the output folder; "
                "give a name, with / for folders."
            ) from None
        progress = comfy.utils.ProgressBar(len(good))
        try:
            with NewShard(Path(folder) / f"{name}_{number:05}_.tar" for number in count(counter)) as shard:
                for number, (hq, lq) in enumerate(zip(*pairs)):
                    comfy.model_management.throw_exception_if_processing_interrupted()
                    key = f"{shard.path.stem.replace('.', '_')}{number:05}"  # a key ends at the first dot
                    files = {"hq.png": png_bytes(hq), "lq.png": png_bytes(lq)}
                    shard.add(key, files, {"prompt": prompt, "width": width, "height": height})
                    progress.update(1)
        except OSError as error:
            raise ValueError(
                f"Save Image Pairs: {filename_prefix[:60]!r} cannot be written in the output folder ({error.strerror or error}); choose "
                "another filename_prefix, or make room."
            ) from None
        text = f"{len(good)} pairs in {Path(subfolder) / shard.path.name}"
        return io.NodeOutput(str(shard.path), ui=ui.PreviewText(text))
