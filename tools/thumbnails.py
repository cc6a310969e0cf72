"""Makes the thumbnails of the graphs: before and after, by running them; of those for FLUX, which are not run, the photo alone.

    python -m comfyui_fluxir.tools.thumbnails [GRAPH ...]

Run when the bundled weights or a graph have changed.
"""

import argparse
import sys
import tempfile

from PIL import ImageDraw, ImageFont
from torch.nn import functional as F

from ..demo.comfyui import ROOT, ComfyUIError, ComfyUIServer
from ..demo.environment import NEWEST, SetupError, comfyui_path
from ..fluxir_core.image.compare import before_after
from ..fluxir_core.image.files import load_image, save_image, to_pil
from .graph_list import GRAPHS
from .result_images import api_node, id_of, workflow_with
from .samples import SAMPLES

SIDE = 320
"""Pixels: thumbnails are square, and so is the part of the photo that the graph is run on."""
BAND = 48
FROM_FOLDER = SAMPLES / "fluxir_brushes_jpeg.jpg"
"""Of a graph that restores a folder."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", metavar="GRAPH", help="only these")
    parser.add_argument("--port", type=int, default=8199)
    arguments = parser.parse_args()
    if unknown := set(arguments.graphs) - set(GRAPHS):
        parser.error(f"no graph {unknown.pop()!r}; there are {', '.join(GRAPHS)}")
    try:
        with tempfile.TemporaryDirectory() as base, ComfyUIServer(comfyui_path(NEWEST), base, arguments.port) as server:
            for name in arguments.graphs or GRAPHS:
                path = ROOT / "workflows" / f"{name}.jpg"
                thumbnail(server, name).save(path, quality=88)
                print(path, flush=True)
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The thumbnails were not made: {error}")


def thumbnail(server, name):
    """A PIL image for the graph `name`."""
    graph = workflow_with(name)
    for node in (node["inputs"] for node in graph.values() if node["class_type"] == "LoadImage"):
        photo = square(load_image(SAMPLES / node["image"]))
        if "FLUX" in name:
            return with_band(to_pil(photo), f"needs {'FLUX.2' if 'klein' in name else 'FLUX.1'}, a download")
        node["image"] = f"square_{node['image']}.png"
        save_image(photo, server.base / "input" / node["image"])
    for node in (node["inputs"] for node in graph.values() if node["class_type"] == "FluxIRLoadNextPhotos"):
        node["folder"] = "a folder"
        (server.base / "input" / node["folder"]).mkdir(parents=True, exist_ok=True)
        save_image(square(load_image(FROM_FOLDER)), server.base / "input" / node["folder"] / "photo.png")
    compared = graph[id_of(graph, "FluxIRBeforeAndAfter")]["inputs"]
    for label in ("before", "after"):
        graph[label] = api_node("SaveImage", images=compared[label], filename_prefix=f"thumbnail_{label}")
    saved = server.run(graph)
    before, after = (load_image(saved[label][0]) for label in ("before", "after"))
    return before_after(square(before), square(after), "split")


def square(image):
    """The middle of `image` (3, H, W) as (3, SIDE, SIDE)."""
    side = min(image.shape[1:])
    top, left = ((extent - side) // 2 for extent in image.shape[1:])
    part = image[None, :, top : top + side, left : left + side]
    return F.interpolate(part, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)


def with_band(image, text):
    """`image` with `text` in a dark band at its foot."""
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, SIDE - BAND, SIDE, SIDE), fill=(24, 24, 24))
    draw.text((SIDE / 2, SIDE - BAND / 2), text, fill="white", font=ImageFont.load_default(20), anchor="mm")
    return image


if __name__ == "__main__":
    main()
