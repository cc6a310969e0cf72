"""Makes the before/after pictures of the README and the help pages, by the shipped workflows on the bundled miniature.

    python -m comfyui_fluxir.demo.result_pictures

The photo is the demo's, which the miniature has not seen in training; every seed is 0.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from ..fluxir_core.degrade import EVALUATION, TASKS, degrade_named
from ..fluxir_core.image import load_picture, montage, quality, save_picture, side_by_side
from ..fluxir_core.image.colour import match_colour
from .comfyui import ROOT, ComfyUIError, ComfyUIServer
from .environment import NEWEST, SetupError, comfyui_path
from .run import ORIGINAL, WORKFLOWS

README_PICTURES = ROOT / "demo" / "pictures"
HELP_PICTURES = ROOT / "web" / "docs" / "images"
SHOWN = ("noise", "low_light", "strong")
PHOTO = "fluxir_demo_degraded.png"
WIDTH = 640
"""Of a help page's picture, in pixels, at most."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8199)
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as base:
            with ComfyUIServer(comfyui_path(NEWEST), base, arguments.port) as server:
                make(Studio(server))
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The pictures were not made: {error}")


class Studio:
    """The pack's workflows on `server` with the demo's photo: `original`, and `degraded` as EVALUATION names it."""

    def __init__(self, server):
        self.server, self.original = server, load_picture(ORIGINAL)
        self.degraded = {name: degrade_named(self.original, name, seed=0) for name in EVALUATION}

    def place(self, picture, name=PHOTO):
        """Puts `picture` (3, H, W) in [0, 1] into the server's input folder."""
        folder = self.server.base / "input"
        folder.mkdir(exist_ok=True)
        save_picture(picture, folder / name)

    def run(self, graph, node=None):
        """Runs `graph` (API format). Returns what `node`, or the one Save Image, saved: a list of PIL pictures."""
        node = node or next(id for id, own in graph.items() if own["class_type"] == "SaveImage")
        return [Image.open(path).convert("RGB") for path in self.server.run(graph)[node]]

    def restored(self, workflow, degradation="noise", **inputs):
        """The photo under `degradation`, restored by `workflow` (its file's stem); see `workflow_with`. A PIL picture."""
        self.place(self.degraded[degradation])
        return self.run(workflow_with(workflow, **inputs))[0]

    def decibels(self, picture):
        """PSNR against the original of `picture`, a PIL picture or (3, H, W) in [0, 1]."""
        planes = picture if torch.is_tensor(picture) else planes_of(picture)
        return quality(planes[None], self.original[None])["psnr"].item()


def make(studio):
    """Writes every picture of README_PICTURES and HELP_PICTURES."""
    for folder in (README_PICTURES, HELP_PICTURES):
        folder.mkdir(parents=True, exist_ok=True)
    for name in SHOWN:
        path = README_PICTURES / f"{name}.jpg"
        before_after(studio, name).save(path, quality=82, optimize=True)
        print(path, flush=True)
    for node, picture in HELP.items():
        path = HELP_PICTURES / f"{node}_result.webp"
        sheet = picture(studio)
        sheet.thumbnail((WIDTH, 2 * WIDTH), Image.Resampling.LANCZOS)
        sheet.save(path, quality=72, method=6)
        print(path, flush=True)


def before_after(studio, degradation):
    degraded, restored = studio.degraded[degradation], studio.restored("fluxir_restore_miniature", degradation)
    return side_by_side({
        f"degraded, {studio.decibels(degraded):.1f} dB": pil(degraded),
        f"restored, {studio.decibels(restored):.1f} dB": restored,
        "original": pil(studio.original),
    })  # fmt: skip


def adapter(studio):
    strengths = {f"strength {s}": studio.restored("fluxir_restore_miniature", ApplyFluxIRAdapter={"strength": s}) for s in (0.5, 1.0)}
    return side_by_side({"degraded": pil(studio.degraded["noise"]), **strengths})


def ummf(studio):
    restored = studio.restored("ummf_restore_miniature")
    return side_by_side({"degraded": pil(studio.degraded["noise"]), "restored": restored, "original": pil(studio.original)})


def fidelity(studio):
    values = {
        f"fidelity {value}": studio.restored("fluxir_fidelity_miniature", RestorationFidelity={"fidelity": value})
        for value in (0.0, 0.5, 1.0)
    }
    return side_by_side({"degraded": pil(studio.degraded["noise"]), **values})


def invented(studio):
    graph = workflow_with("fluxir_fidelity_miniature", RestorationFidelity={"fidelity": 0.0})
    studio.place(studio.degraded["strong"])
    (shown,) = (id for id, node in graph.items() if node["class_type"] == "PreviewImage")
    restored, mapped = studio.run(graph)[0], studio.run(graph, shown)[0]
    return side_by_side({"degraded": pil(studio.degraded["strong"]), "restored": restored, "invented detail": mapped})


def tiles(studio):
    by_overlap = {
        f"tiles, overlap {overlap}": studio.restored(
            "fluxir_large_picture_miniature", TileModel={"tile": 128, "overlap": overlap}
        )
        for overlap in (0.0, 0.25)
    }
    return side_by_side({"degraded": pil(studio.degraded["noise"]), **by_overlap})


def search(studio):
    plain = studio.restored("fluxir_restore_miniature", "strong")
    best = studio.restored("fluxir_search_miniature", "strong", TTSSampler={"preset": "smc"})
    return side_by_side({
        "degraded": pil(studio.degraded["strong"]),
        f"plain, {studio.decibels(plain):.1f} dB": plain,
        f"smc, {studio.decibels(best):.1f} dB": best,
    })  # fmt: skip


def chart(studio):
    studio.place(studio.degraded["noise"])
    graph = workflow_with("fluxir_search_miniature")
    (shown,) = (id for id, node in graph.items() if node["class_type"] == "PreviewImage")
    return studio.run(graph, shown)[0]


def scores(studio):
    restored = planes_of(studio.restored("fluxir_restore_miniature"))
    smooth = torch.nn.functional.avg_pool2d(restored[None], 5, 1, 2, count_include_pad=False)[0]
    for name, picture in {"degraded": studio.degraded["noise"], "restored": restored, "blurred": smooth}.items():
        studio.place(picture, f"{name}.png")
    load = {name: {"class_type": "LoadImage", "inputs": {"image": f"{name}.png"}} for name in ("degraded", "restored", "blurred")}
    return studio.run({
        **load,
        "two": {"class_type": "ImageBatch", "inputs": {"image1": ["degraded", 0], "image2": ["restored", 0]}},
        "three": {"class_type": "ImageBatch", "inputs": {"image1": ["two", 0], "image2": ["blurred", 0]}},
        "judge": {"class_type": "NaturalImageVerifier", "inputs": {}},
        "score": {"class_type": "ScoreImages", "inputs": {"images": ["three", 0], "verifier": ["judge", 0], "degraded": ["degraded", 0]}},
        "sheet": {"class_type": "SaveImage", "inputs": {"images": ["score", 3], "filename_prefix": "scores"}},
    })[0]  # fmt: skip


def colour(studio):
    noisy, shift = studio.degraded["noise"], torch.tensor([1.18, 0.92, 0.8])[:, None, None]
    shifted = (studio.original * shift + 0.03).clamp(0, 1)
    matched = match_colour(shifted[None], noisy[None])[0]
    return side_by_side({"image": pil(shifted), "reference": pil(noisy), "wavelet": pil(matched)})


def degradations(studio):
    pictures = {"undamaged": studio.original}
    pictures |= {name: degrade(studio.original[None], 0.7, [0])[0] for name, degrade in TASKS.items()}
    return montage(torch.stack(list(pictures.values())), list(pictures), width=WIDTH)


def selection(studio):
    return studio.run(workflow_with("fluxgen_miniature"))[0]


def pairs(studio):
    graph = workflow_with("fluxgen_miniature")
    (degrade,) = (id for id, node in graph.items() if node["class_type"] == "DegradeImage")
    for name, images in {"good": graph[degrade]["inputs"]["image"], "degraded": [degrade, 0]}.items():
        graph[name] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": name}}
    pictures = {name: studio.run(graph, name)[:2] for name in ("good", "degraded")}
    return side_by_side({
        f"{name} {number}": pictures[name][number - 1] for number in (1, 2) for name in ("good", "degraded")
    })  # fmt: skip


HELP = {
    "ApplyFluxIRAdapter": adapter,
    "ApplyUMMFLoRA": ummf,
    "DegradeImage": degradations,
    "FluxGenSaveImagePairs": pairs,
    "FluxGenSelectImages": selection,
    "InventedDetail": invented,
    "MatchColour": colour,
    "RestorationFidelity": fidelity,
    "ScoreImages": scores,
    "SearchReportChart": chart,
    "TTSSampler": search,
    "TileModel": tiles,
}
"""By node id: functions of a Studio that give the picture of what the node does."""


def workflow_with(name, **inputs):
    """The shipped workflow `name` in API format, with `inputs` ({class: {input: value}}) changed."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text())
    for node in graph.values():
        node["inputs"] |= inputs.get(node["class_type"], {})
    return graph


def pil(picture):
    """A PIL picture of `picture` (3, H, W) in [0, 1]."""
    return Image.fromarray((picture.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy())


def planes_of(picture):
    """`picture`, a PIL picture, as (3, H, W) in [0, 1]."""
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(*picture.size[::-1], 3).permute(2, 0, 1) / 255


if __name__ == "__main__":
    main()
