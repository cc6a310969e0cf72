"""`make demo`: restores the shipped photo in a real ComfyUI and measures the result."""

import argparse
import json
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from ..fluxir_core.image.compare import side_by_side
from ..fluxir_core.image.files import load_image
from ..fluxir_core.image.quality import quality
from .comfyui import ROOT, ComfyUIError, ComfyUIServer
from .environment import NEWEST, SetupError, comfyui_path

WORKFLOWS = ROOT / "workflows" / "api"
WORKFLOW, FEW_STEPS = WORKFLOWS / "01 Restore a photo (works now).json", WORKFLOWS / "03 Restore a photo in four steps.json"
DEGRADED = ROOT / "samples" / "fluxir_dogs_noisy.jpg"
ORIGINAL = ROOT / "samples" / "fluxir_dogs_original.jpg"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8199)
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "demo")
    parser.add_argument("--few-steps", action="store_true", help="in four steps, by the few-step student")
    arguments = parser.parse_args()
    try:
        report = run_demo(comfyui_path(NEWEST), arguments.port, arguments.out, FEW_STEPS if arguments.few_steps else WORKFLOW)
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The demo stopped: {error}")
    except KeyboardInterrupt:
        sys.exit("The demo was interrupted; nothing is left running.")
    for name in ("degraded", "restored"):
        print(f"{name:9}" + "   ".join(f"{measure} {value}" for measure, value in report[name].items()))
    print(f"Images and report.json are in {arguments.out}")


def run_demo(comfyui, port, out, workflow=WORKFLOW):
    """Runs the shipped `workflow` on the shipped photo and writes degraded.png, restored.png, comparison.png and report.json
    to `out`. Returns the report. Raises ComfyUIError or SetupError with one sentence."""
    workflow = json.loads(workflow.read_text(encoding="utf-8"))
    (loader,) = (node for node in workflow.values() if node["class_type"] == "LoadImage")
    (saver,) = (node_id for node_id, node in workflow.items() if node["class_type"] == "SaveImage")
    out.mkdir(parents=True, exist_ok=True)
    base = out / "comfyui"
    (base / "input").mkdir(parents=True, exist_ok=True)
    shutil.copy(DEGRADED, base / "input" / loader["inputs"]["image"])

    print("starting ComfyUI", flush=True)
    bar = ProgressBar()
    with ComfyUIServer(comfyui, base, port) as server:
        versions = server.get("/system_stats")["system"]
        started = time.perf_counter()
        (restored,) = server.run(workflow, bar)[saver]
        seconds = time.perf_counter() - started

    images = {"degraded": DEGRADED, "restored": restored, "original": ORIGINAL}
    opened = {name: Image.open(path).convert("RGB") for name, path in images.items()}
    for name in ("degraded", "restored"):
        opened[name].save(out / f"{name}.png")
    side_by_side(opened).save(out / "comparison.png")
    original = load_image(ORIGINAL)[None]
    report: dict = {
        name: {measure: round(value.item(), 4) for measure, value in quality(load_image(images[name])[None], original).items()}
        for name in ("degraded", "restored")
    }
    report |= {
        "seconds": round(seconds, 2),
        "nfe": bar.steps,
        "seed": seed_of(workflow),
        "versions": {
            "python": platform.python_version(),
            "torch": versions["pytorch_version"],
            "comfyui": versions["comfyui_version"],
            "fluxir": version("fluxir"),
        },
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def seed_of(workflow):
    """The seed of the workflow's sampler or noise node."""
    seeds = (node["inputs"].get("seed", node["inputs"].get("noise_seed")) for node in workflow.values())
    return next(seed for seed in seeds if seed is not None)


class ProgressBar:
    """Draws the sampler's progress on one line. `steps` is the number of model calls of the longest node: its NFE at cfg 1."""

    steps = 0

    def __call__(self, _node, step, steps):
        self.steps = max(self.steps, steps)
        filled = round(30 * step / steps)
        print(f"\rrestoring [{'#' * filled}{'.' * (30 - filled)}] {step}/{steps}", end="\n" if step == steps else "", flush=True)


if __name__ == "__main__":
    main()
