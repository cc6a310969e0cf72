"""Makes the before/after images of the README and the help pages, by the shipped workflows on the bundled miniature.

    python -m comfyui_fluxir.tools.result_images

The photo is a sample, which no model has seen in training; every seed is 0.
"""

import argparse
import json
import sys
import tempfile

import torch
from PIL import Image

from ..demo.comfyui import ROOT, ComfyUIError, ComfyUIServer
from ..demo.environment import NEWEST, SetupError, comfyui_path
from ..demo.run import ORIGINAL
from ..fluxir_core.degrade.basic import gaussian_blur
from ..fluxir_core.degrade.presets import EVALUATION, degrade_named
from ..fluxir_core.degrade.tasks import TASKS
from ..fluxir_core.image.color import match_color
from ..fluxir_core.image.compare import side_by_side
from ..fluxir_core.image.files import load_image, save_image, to_pil
from ..fluxir_core.image.montage import montage
from ..fluxir_core.image.quality import quality
from .help_images import IMAGES

README_IMAGES = ROOT / "demo" / "pictures"


SHOWN = ("noise", "low_light", "strong")


PHOTO = "photo.png"


README_WIDTH = 860
WIDTH = 640
"""Of a help page's image, in pixels, at most."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8199)
    port = parser.parse_args().port
    try:
        with tempfile.TemporaryDirectory() as base, ComfyUIServer(comfyui_path(NEWEST), base, port) as server:
            make(Studio(server))
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The images were not made: {error}")


class Studio:
    """The pack's workflows on `server` with the demo's photo: `original`, and `degraded` as EVALUATION names it."""

    def __init__(self, server):
        self.server, self.original = server, load_image(ORIGINAL)
        self.degraded = {name: degrade_named(self.original, name, seed=0) for name in EVALUATION}

    def place(self, image, name=PHOTO):
        """Puts `image` (3, H, W) in [0, 1] into the server's input folder."""
        folder = self.server.base / "input"
        folder.mkdir(exist_ok=True)
        save_image(image, folder / name)

    def run(self, graph, node="SaveImage"):
        """Runs `graph` (API format). Returns the images (3, H, W) in [0, 1] that `node`, an id or one node's class, saved."""
        return [load_image(path) for path in self.server.run(graph)[node if node in graph else id_of(graph, node)]]

    def restored(self, workflow, degradation="noise", **inputs):
        """The photo under `degradation`, restored by `workflow` (its file's stem); see `workflow_with`."""
        return self.run(self.graph(workflow, degradation, **inputs))[0]

    def graph(self, workflow, degradation="noise", **inputs):
        """`workflow_with`, of the photo under `degradation`."""
        self.place(self.degraded[degradation])
        return workflow_with(workflow, **{"LoadImage": {"image": PHOTO}, "ImageScaleBy": {"scale_by": 1.0}} | inputs)

    def decibels(self, image):
        """PSNR of `image` against the original."""
        return quality(image[None], self.original[None])["psnr"].item()


def make(studio):
    """Writes every image of README_PICTURES and PICTURES."""
    for folder in (README_IMAGES, IMAGES):
        folder.mkdir(parents=True, exist_ok=True)
    for name in SHOWN:
        path = README_IMAGES / f"{name}.jpg"
        sheet = before_after(studio, name)
        sheet.thumbnail((README_WIDTH, README_WIDTH), Image.Resampling.LANCZOS)
        sheet.save(path, quality=72, optimize=True)
        print(path, flush=True)
    for node, image in HELP.items():
        path = IMAGES / f"{node}_result.webp"
        sheet = image(studio)
        sheet.thumbnail((WIDTH, 2 * WIDTH), Image.Resampling.LANCZOS)
        sheet.save(path, quality=62, method=6)
        print(path, flush=True)


def before_after(studio, degradation):
    degraded, restored = studio.degraded[degradation], studio.restored("01 Restore a photo (works now)", degradation)
    return strip(
        {
            f"degraded, {studio.decibels(degraded):.1f} dB": degraded,
            f"restored, {studio.decibels(restored):.1f} dB": restored,
            "original": studio.original,
        }
    )


def adapter(studio):
    strengths = {
        f"strength {strength}": studio.restored("01 Restore a photo (works now)", FluxIRApplyAdapter={"strength": strength})
        for strength in (0.5, 1.0)
    }
    return strip({"degraded": studio.degraded["noise"], **strengths})


def ummf(studio):
    restored = studio.restored("07 Restore a photo with UMMF")
    return strip({"degraded": studio.degraded["noise"], "restored": restored, "original": studio.original})


def few_steps(studio):
    counts = {
        f"{steps} {'step' if steps == 1 else 'steps'}": studio.restored(
            "03 Restore a photo in four steps", FluxIRDistilledSigmas={"steps": steps}
        )
        for steps in (1, 2, 4)
    }
    slow = studio.restored("01 Restore a photo (works now)")
    return strip({"degraded": studio.degraded["noise"], **counts, "without a student, 20": slow})


def fidelity(studio):
    values = {
        f"fidelity {value}": studio.restored(
            "02 Restore a photo and keep it faithful", FluxIRRestorationFidelity={"fidelity": value}
        )
        for value in (0.0, 0.5, 1.0)
    }
    return strip({"degraded": studio.degraded["noise"], **values})


def invented(studio):
    graph = studio.graph("02 Restore a photo and keep it faithful", FluxIRRestorationFidelity={"fidelity": 0.0})
    restored, mapped = studio.run(graph)[0], studio.run(graph, "PreviewImage")[0]
    return strip({"degraded": studio.degraded["noise"], "restored": restored, "invented detail": mapped})


def tiles(studio):
    by_overlap = {
        f"128, overlap {overlap}": studio.restored("05 Large photo in tiles", FluxIRTileModel={"tile": 128, "overlap": overlap})
        for overlap in (0.0, 0.25)
    }
    return strip({"degraded": studio.degraded["noise"], **by_overlap})


def chart(studio):
    return to_pil(studio.run(studio.graph("04 Search for the best result"), "PreviewImage")[0])


def scores(studio):
    restored = studio.restored("01 Restore a photo (works now)")
    blurred = gaussian_blur(restored, 2.0)
    rivals = {"restored": restored, "blurred": blurred, "oversharpened": (restored + 2 * (restored - blurred)).clamp(0, 1)}
    for name, image in {**rivals, "degraded": studio.degraded["noise"]}.items():
        studio.place(image, f"{name}.png")
    graph = {name: api_node("LoadImage", image=f"{name}.png") for name in (*rivals, "degraded")} | {
        "two": api_node("ImageBatch", image1=["restored", 0], image2=["blurred", 0]),
        "three": api_node("ImageBatch", image1=["two", 0], image2=["oversharpened", 0]),
        "judge": api_node("FluxIRNaturalImageVerifier"),
        "score": api_node("FluxIRScoreImages", images=["three", 0], verifier=["judge", 0], degraded=["degraded", 0], keep=1),
        "sheet": api_node("SaveImage", images=["score", 3], filename_prefix="scores"),
    }
    return to_pil(studio.run(graph)[0])


def api_node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def color(studio):
    noisy, shift = studio.degraded["noise"], torch.tensor([1.18, 0.92, 0.8])[:, None, None]
    shifted = (studio.original * shift + 0.03).clamp(0, 1)
    matched = match_color(shifted[None], noisy[None])[0]
    return strip({"image": shifted, "reference": noisy, "wavelet": matched})


def degradations(studio):
    images = {"undamaged": studio.original}
    images |= {name: degrade(studio.original[None], 0.7, [0])[0] for name, degrade in TASKS.items()}
    return montage(torch.stack(list(images.values())), list(images), width=WIDTH)


def selection(studio):
    return to_pil(studio.run(workflow_with("11 Make pairs to train on"))[0])


def pairs(studio):
    graph = workflow_with("11 Make pairs to train on")
    degrade = id_of(graph, "FluxIRDegradeImage")
    for name, images in {"good": graph[degrade]["inputs"]["image"], "degraded": [degrade, 0]}.items():
        graph[name] = api_node("SaveImage", images=images, filename_prefix=name)
    images = {name: studio.run(graph, name)[:2] for name in ("good", "degraded")}
    return strip({f"{name} {number}": images[name][number - 1] for number in (1, 2) for name in ("good", "degraded")})


HELP = {
    "FluxIRApplyAdapter": adapter,
    "FluxIRApplyUMMFLoRA": ummf,
    "FluxIRDegradeImage": degradations,
    "FluxIRDistilledSigmas": few_steps,
    "FluxIRSaveImagePairs": pairs,
    "FluxIRSelectImages": selection,
    "FluxIRInventedDetail": invented,
    "FluxIRMatchColor": color,
    "FluxIRRestorationFidelity": fidelity,
    "FluxIRScoreImages": scores,
    "FluxIRSearchReportChart": chart,
    "FluxIRTileModel": tiles,
}
"""By node id: functions of a Studio that give the image of what the node does."""


def workflow_with(name, **inputs):
    """The shipped workflow `name` in API format, with `inputs` ({class: {input: value}}) changed."""
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in graph.values():
        node["inputs"] |= inputs.get(node["class_type"], {})
    return graph


def id_of(graph, kind):
    """The id of the one node of class `kind` in `graph` (API format)."""
    (found,) = (id for id, node in graph.items() if node["class_type"] == kind)
    return found


def strip(images):
    """`side_by_side` of `images` {label: (3, H, W) in [0, 1]}."""
    return side_by_side({label: to_pil(image) for label, image in images.items()})


if __name__ == "__main__":
    main()
