"""A folder of photos, one after the other: names are kept, a bad file is skipped, and a stopped run goes on where it was."""

import os
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..fluxir_core.image.files import LoadedImage, image_bytes, read_image
from ..fluxir_core.image.folder import images_left
from .inputs import checked_image
from .runtime import answer

LOAD_NODE, SAVE_NODE = "Load Next Photos", "Save Photo by Name"
CATEGORY = "FluxIR/image"


class LoadNextPhotos(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRLoadNextPhotos",
            display_name=LOAD_NODE,
            category=CATEGORY,
            description="Gives the next photos of a folder that have no result yet. Run again for the next ones. A file that cannot be read "
            "is skipped, and the node says which.",
            search_aliases=["load images from folder", "batch folder", "directory", "restore photo", "fluxir"],
            inputs=[
                io.String.Input(
                    "folder", default="", tooltip="A folder inside ComfyUI's input folder; empty: the input folder itself."
                ),
                io.String.Input(
                    "results",
                    default="restored",
                    tooltip="The folder inside ComfyUI's output folder where the results are, as in Save Photo by Name. A photo whose "
                    "result is there is not given again.",
                ),
                io.Int.Input("count", default=1, min=1, max=1000, tooltip="How many photos a run takes."),
            ],
            outputs=[
                io.Image.Output(display_name="photo", is_output_list=True, tooltip="The photos, each in its own size."),
                io.String.Output(display_name="name", is_output_list=True, tooltip="Their names, for Save Photo by Name."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder, results, count):
        try:
            left = [path for path, _name in images_left(*_folders(LOAD_NODE, folder, results))[0]]
            return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in left]
        except (ValueError, OSError):
            return []  # execute says why

    @classmethod
    def execute(cls, folder, results, count) -> io.NodeOutput:
        source, out = _folders(LOAD_NODE, folder, results)
        left, total = images_left(source, out)
        if not total:
            raise ValueError(f"{LOAD_NODE}: there is no photo in {source}; put some there, or choose another folder.")
        photos, names, bad = [], [], []
        for path, name in left:
            try:
                photos.append(_as_image(read_image(path)))
            except ValueError as error:
                bad.append(str(error).replace(str(path), path.name))
                continue
            names.append(name.as_posix())
            if len(photos) == count:
                break
        done = total - len(left)
        rest = "the others cannot be read." if bad else "there is nothing left to do."
        said = [f"{done} of {total} are done. Now: {', '.join(names)}." if names else f"{done} of {total} are done; {rest}"]
        said += [f"Skipped: {reason}" for reason in bad]
        nothing = [ExecutionBlocker(None)]
        return io.NodeOutput(photos or nothing, names or nothing, ui=answer("\n".join(said)))


class SavePhotoByName(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRSavePhotoByName",
            display_name=SAVE_NODE,
            category=CATEGORY,
            description="Saves a photo under the name it had, in a folder of its own. A file that is there already is not replaced.",
            search_aliases=["save image", "keep file name", "filename", "batch folder", "fluxir"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The restored photo; of several the first is saved."),
                io.String.Input("name", force_input=True, tooltip="Its name, from Load Next Photos."),
                io.String.Input("results", default="restored", tooltip="The folder inside ComfyUI's output folder."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where it was saved.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs):
        return float("nan")  # looks whether the file is still there at every run

    @classmethod
    def execute(cls, image, name, results) -> io.NodeOutput:
        planes = checked_image(SAVE_NODE, "image", image)[0].float().movedim(-1, 0)
        _source, out = _folders(SAVE_NODE, "", results)
        path = _inside(SAVE_NODE, "name", out, name)
        if path.exists():
            return io.NodeOutput(str(path), ui=answer(f"{name} is there already; it stays as it is."))
        pixels = planes[:3].expand(3, -1, -1)
        try:
            content, remarks = image_bytes(LoadedImage(pixels, planes[3:] if len(planes) == 4 else None), path.suffix)
        except ValueError as error:
            raise ValueError(f"{SAVE_NODE}: {error}") from None
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")  # a run that is stopped leaves no half of a photo
        partial.write_bytes(content)
        os.replace(partial, path)
        return io.NodeOutput(str(path), ui=answer("\n".join([f"Saved {name}.", *remarks])))


def _folders(node, folder, results):
    """The folders of the photos and of the results."""
    source = _inside(node, "folder", Path(folder_paths.get_input_directory()), folder.strip())
    if not source.is_dir():
        raise ValueError(f"{node}: there is no folder {source}; make it, or choose another.")
    if not results.strip():
        raise ValueError(f"{node}: results is empty; name a folder, such as restored.")
    return source, _inside(node, "results", Path(folder_paths.get_output_directory()), results.strip())


def _inside(node, which, root, name):
    """The path `name` inside the folder `root`, or `root` where it is empty."""
    try:
        path = (root / name).resolve()
        path.exists()  # the system's own limits
    except (OSError, ValueError):
        raise ValueError(f"{node}: {which} is {name[:60]!r}, which no file can be called; choose another name.") from None
    if path != root.resolve() and root.resolve() not in path.parents:
        raise ValueError(f"{node}: {which} is {name[:60]!r}, which lies outside {root}; name a folder or file inside it.")
    return path


def _as_image(loaded):
    """A LoadedImage as IMAGE (1, H, W, 3), or 4 with its transparency."""
    planes = loaded.pixels if loaded.alpha is None else torch.cat([loaded.pixels, loaded.alpha])
    return planes.movedim(0, -1)[None].contiguous()
