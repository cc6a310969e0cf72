"""Makes the thumbnails of the workflows that run on the bundled miniature, by running them.

    python -m comfyui_fluxir.tools.thumbnails [WORKFLOW ...]

Run when the bundled weights or a workflow have changed. The graphs for large models show what the miniature does in their place.
"""

import argparse
import sys
import tempfile

from ..demo.comfyui import ROOT, ComfyUIError, ComfyUIServer
from ..demo.environment import NEWEST, SetupError, comfyui_path
from ..fluxir_core.image.compare import side_by_side
from ..fluxir_core.image.files import load_image, to_pil
from .result_images import Studio, api_node, workflow_with

SIZE, HEIGHT = (900, 300), 256


PHOTO = {"degraded": ("1", 0)}


SHOWN = {
    "fluxgen_miniature": {"good": ("9", 0), "degraded": ("10", 0)},
    "fluxir_evaluate_miniature": {"degraded": ("6", 0), "restored": ("14", 0), "original": ("5", 0)},
    "fluxir_few_steps_miniature": PHOTO | {"restored in 4 steps": ("14", 0)},
    "fluxir_fidelity_miniature": PHOTO | {"fidelity 0.5": ("11", 0), "invented detail": ("16", 0)},
    "fluxir_large_photo_miniature": PHOTO | {"restored in tiles": ("11", 0)},
    "fluxir_restore_miniature": PHOTO | {"restored": ("11", 0)},
    "fluxir_search_miniature": PHOTO | {"restored": ("16", 0), "the search": ("19", 0)},
    "search_your_own_miniature": PHOTO | {"stepwise": ("25", 0), "evolutionary": ("26", 0), "particles": ("27", 0)},
    "ummf_restore_miniature": PHOTO | {"restored (UMMF)": ("12", 0)},
}
"""By workflow: what its thumbnail shows, as labels and outputs (node id, slot)."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflows", nargs="*", metavar="WORKFLOW", help="only these")
    parser.add_argument("--port", type=int, default=8199)
    arguments = parser.parse_args()
    if unknown := set(arguments.workflows) - set(SHOWN):
        parser.error(f"no workflow {unknown.pop()!r}; there are {', '.join(SHOWN)}")
    try:
        with tempfile.TemporaryDirectory() as base, ComfyUIServer(comfyui_path(NEWEST), base, arguments.port) as server:
            studio = Studio(server)
            for name in arguments.workflows or SHOWN:
                path = ROOT / "workflows" / f"{name}.jpg"
                thumbnail(studio, name).save(path, quality=85)
                print(path, flush=True)
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The thumbnails were not made: {error}")


def thumbnail(studio, name):
    """The outputs that SHOWN names, side by side, after running the workflow `name`."""
    graph = workflow_with(name)
    studio.place(studio.degraded["noise"])
    studio.place(studio.original, "fluxir_demo_original.png")
    for label, output in SHOWN[name].items():
        graph[label] = api_node("SaveImage", images=list(output), filename_prefix=name)
    saved = studio.server.run(graph)
    images = {label: to_pil(load_image(saved[label][0])) for label in SHOWN[name]}
    label, first = next(iter(images.items()))
    if first.height < HEIGHT:
        images[label] = first.resize((first.width * HEIGHT // first.height, HEIGHT))  # the others follow it
    sheet = side_by_side(images)
    sheet.thumbnail(SIZE)
    return sheet


if __name__ == "__main__":
    main()
