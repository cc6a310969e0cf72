"""Makes the help pages' images of the nodes: each among its usual neighbors, as ComfyUI's own frontend draws it.

    python -m comfyui_fluxir.tools.help_images [NodeId ...]

Run when a node's inputs, outputs or neighbors have changed; needs a Chromium, as the browser tests do.
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from ..demo.comfyui import ROOT, ComfyUIError, ComfyUIServer
from ..demo.environment import NEWEST, SetupError, browser_path, comfyui_path
from .frontend import opened, settings
from .samples import SAMPLES

DOCS = ROOT / "web" / "docs"


IMAGES = DOCS / "images"


MARGIN = 14


MISSING = {
    "lucidflux.safetensors": "models/model_patches",
    "lora_condition/adapter_model.safetensors": "models/loras",
    "few-step-lora.safetensors": "models/loras",
    "Qwen2.5-VL-7B-Instruct/config.json": "models/fluxir_captioners",
}

JUDGES = [["verifier", "FluxIRTTSSampler", "verifier"], ["verifier", "FluxIRVerifierEnsemble", "verifiers.verifier0"]]
SEARCHES = [["search", "FluxIRTTSSampler", "search"], ["search", "FluxIRBudgetPlan", "search"]]
COMPANY = {
    "FluxIRAestheticVerifier": {"after": JUDGES},
    "FluxIRCLIPScoreVerifier": {"after": JUDGES},
    "FluxIRImageRewardVerifier": {"after": JUDGES},
    "FluxIRNaturalImageVerifier": {"after": JUDGES},
    "FluxIRPyIQAVerifier": {"after": JUDGES},
    "FluxIRVerifierEnsemble": {
        "before": [["verifiers.verifier0", "FluxIRNaturalImageVerifier"], ["verifiers.verifier1", "FluxIRCLIPScoreVerifier"]],
        "after": [["verifier", "FluxIRTTSSampler", "verifier"]],
    },
    "FluxIRChooseYourself": {
        "before": [["verifier", "FluxIRNaturalImageVerifier"]],
        "after": [["verifier", "FluxIRTTSSampler", "verifier"], ["verifier", "FluxIRScoreImages", "verifier"]],
    },
    "FluxIRMyTaste": {
        "before": [["verifier", "FluxIRNaturalImageVerifier"]],
        "after": [["verifier", "FluxIRTTSSampler", "verifier"], ["report", "PreviewAny", "source"]],
    },
    "FluxIRDegradeImage": {
        "before": [["image", "LoadImage"]],
        "after": [["image", "FluxIRSaveImagePairs", "degraded"], ["image", "ImageCompare", "image_a"]],
    },
    "FluxIREvolutionarySearch": {"after": SEARCHES},
    "FluxIRParticleSearch": {"after": SEARCHES},
    "FluxIRStepwiseSearch": {"after": SEARCHES},
    "FluxIRDistilledSigmas": {"after": [["sigmas", "SamplerCustomAdvanced", "sigmas"]]},
    "FluxIREvaluateRestoration": {"before": [["restored", "VAEDecode"], ["degraded", "LoadImage"], ["original", "LoadImage"]]},
    "FluxIRNoisyStartLatent": {
        "before": [
            ["model", "UNETLoader"],
            ["noise", "RandomNoise"],
            ["sigmas", "FluxIRDistilledSigmas"],
            ["degraded", "VAEEncode"],
        ],
        "after": [["latent", "SamplerCustomAdvanced", "latent_image"]],
    },
    "FluxIRLoadLucidFlux": {"after": [["lucidflux", "FluxIRApplyLucidFlux", "lucidflux"]]},
    "FluxIRApplyLucidFluxLoRA": {
        "before": [["lucidflux", "FluxIRLoadLucidFlux"]],
        "after": [["lucidflux", "FluxIRApplyLucidFlux", "lucidflux"]],
    },
    "FluxIRApplyLucidFlux": {
        "before": [
            ["model", "UNETLoader"],
            ["lucidflux", "FluxIRLoadLucidFlux"],
            ["degraded", "LoadImage"],
            ["cleaned", "ImageUpscaleWithModel"],
            ["clip_vision", "CLIPVisionLoader"],
        ],
        "after": [["model", "BasicGuider", "model"]],
    },
    "FluxIRLucidFluxSigmas": {
        "before": [["latent", "EmptySD3LatentImage"]],
        "after": [["sigmas", "SamplerCustomAdvanced", "sigmas"]],
    },
    "FluxIRLoadStoredPrompt": {"after": [["conditioning", "BasicGuider", "conditioning"]]},
    "FluxIRApplyPEFTLoRA": {"before": [["model", "UNETLoader"]], "after": [["model", "BasicGuider", "model"]]},
    "FluxIRApplyVAELoRA": {"before": [["vae", "VAELoader"]], "after": [["vae", "VAEEncode", "vae"]]},
    "FluxIRAlignToInput": {
        "before": [["restored", "VAEDecode"], ["degraded", "LoadImage"]],
        "after": [["image", "SaveImage", "images"]],
    },
    "FluxIRDriftVerifier": {"after": [["verifier", "FluxIRVerifierEnsemble", "verifiers.verifier0"]]},
    "FluxIRSplitIntoTiles": {
        "before": [["image", "LoadImage"]],
        "after": [["tiles", "FluxIRCaptionImage", "image"], ["places", "FluxIRPromptPerTile", "places"]],
    },
    "FluxIRPromptPerTile": {
        "before": [["conditioning", "CLIPTextEncode"], ["places", "FluxIRSplitIntoTiles"]],
        "after": [["conditioning", "BasicGuider", "conditioning"]],
    },
    "FluxIRMatchColor": {
        "before": [["image", "VAEDecode"], ["reference", "LoadImage"]],
        "after": [["image", "SaveImage", "images"]],
    },
    "FluxIRScoreImages": {
        "before": [["images", "VAEDecode"], ["verifier", "FluxIRNaturalImageVerifier"], ["degraded", "LoadImage"]],
        "after": [["best", "SaveImage", "images"], ["sheet", "PreviewImage", "images"]],
    },
    "FluxIRTTSSamplerSelect": {
        "before": [["vae", "VAELoader"], ["verifier", "FluxIRNaturalImageVerifier"], ["degraded", "LoadImage"]],
        "after": [["sampler", "SamplerCustomAdvanced", "sampler"]],
    },
}
"""Of nodes that no shipped workflow shows among their usual neighbors: `before` input, class; `after` output, class, input."""


PLACE = """([kind, { before = [], after = [] }]) => {
  const add = type => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    return node;
  };
  const slot = (slots, name) => slots.findIndex(slot => slot.name === name);
  const link = (from, output, to, input) => {
    const [a, b] = [slot(from.outputs, output), slot(to.inputs, input)];
    if (a < 0 || b < 0) throw `${from.type}.${output} > ${to.type}.${input}`;
    from.connect(a, to, b);
  };
  const node = add(kind);
  for (const [input, type] of before) {
    const from = add(type), wanted = node.inputs[slot(node.inputs, input)]?.type ?? "";
    link(from, from.outputs.find(output => wanted.split(",").includes(output.type))?.name, node, input);
  }
  for (const [output, type, input] of after) link(node, output, add(type), input);
}"""


# The node, its direct neighbors as titles above and below, because the help panel is narrow, and no link but its own.
ALONE = """async kind => {
  const node = app.graph.nodes.find(node => node.type === kind);
  const before = new Set(node.inputs.map((_, i) => node.getInputNode(i)).filter(Boolean));
  const after = new Set(node.outputs.flatMap((_, i) => node.getOutputNodes(i) ?? []));
  for (const other of [...app.graph.nodes]) {
    if (other !== node && !before.has(other) && !after.has(other)) app.graph.remove(other);
  }
  for (const group of [...app.graph.groups]) app.graph.remove(group);
  for (const link of [...app.graph.links.values()]) {
    if (link.origin_id !== node.id && link.target_id !== node.id) app.graph.removeLink(link.id);
  }
  for (const each of app.graph.nodes) each.title = each.constructor.title;
  const drawn = () => {
    app.canvas.deselectAll();
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [innerWidth / 2, 150];
    app.canvas.setDirty(true, true);
    return new Promise(resolve => setTimeout(resolve, 400));
  };
  const stack = (nodes, left, top) => [...nodes].forEach((other, i) => {
    other.collapse(true);
    other.pos = [left, top + 40 * i];
  });
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, 270), height]);
  node.pos = [60, 40 * before.size + 34];
  stack(before, 0, 0);
  await drawn();
  const box = document.querySelector(`[data-node-id="${node.id}"]`);
  stack(after, 130, node.pos[1] + box.offsetHeight + 28);
  await drawn();
}"""


BOUNDS = """() => {
  const boxes = Array.from(document.querySelectorAll("[data-node-id]"), node => node.getBoundingClientRect());
  const [left, top] = ["left", "top"].map(side => Math.min(...boxes.map(box => box[side])));
  const [right, bottom] = ["right", "bottom"].map(side => Math.max(...boxes.map(box => box[side])));
  return { x: left, y: top, width: right - left, height: bottom - top };
}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", help="node ids (default: every help page's)")
    parser.add_argument("--port", type=int, default=8199)
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    try:
        make(arguments.nodes or sorted(page.stem for page in DOCS.glob("*.md")), arguments.out, arguments.port)
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The images were not made: {error}")


def make(nodes, out, port):
    """Writes `out`/<node id>.webp for each of `nodes`. Raises ComfyUIError or SetupError with one sentence."""
    chromium = browser_path()
    if chromium is None:
        raise SetupError("there is no Chromium on this machine; install chromium.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "comfyui"
        settings(base)
        stock(base)
        profile = f"{scratch}/profile"
        with ComfyUIServer(comfyui_path(NEWEST), base, port) as server, opened(server.url, chromium, profile) as page:
            for number, node in enumerate(nodes):
                image(page, node, number).save(out / f"{node}.webp", quality=80, method=6)
                print(out / f"{node}.webp", flush=True)


def stock(base):
    """Gives the server in `base` the photo, and empty files of the names that nodes list but the pack does not ship."""
    files = {name: base / folder / name for name, folder in MISSING.items()}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (base / "input").mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES.glob("*.jpg"):
        shutil.copy(sample, base / "input")


def image(frontend, node, number):
    """The node `node` among its neighbors, as a PIL image. `number` is another for every image of a page."""
    # The frontend remembers widgets and images by the node's id, also of graphs that are closed.
    first = 1000 * number
    if node in COMPANY:
        frontend.load({"version": 0.4, "last_node_id": first, "last_link_id": first, "nodes": [], "links": []}, node)
        frontend.page.evaluate(PLACE, [node, COMPANY[node]])
    else:
        workflow = richest_workflow(node)
        frontend.load(json.loads(workflow.read_text(encoding="utf-8")), workflow.stem)
    frontend.page.evaluate(ALONE, node)
    bounds = frontend.page.evaluate(BOUNDS)
    clip = {
        "x": bounds["x"] - MARGIN,
        "y": bounds["y"] - MARGIN,
        "width": bounds["width"] + 2 * MARGIN,
        "height": bounds["height"] + 2 * MARGIN,
    }
    return Image.open(io.BytesIO(frontend.page.screenshot(clip=clip)))


def richest_workflow(node):
    """The shipped workflow in which `node` has the most links; of several, the smallest that runs on the miniature.

    Raises SetupError when there is none.
    """

    def rank(path):
        graph = json.loads(path.read_text(encoding="utf-8"))
        links = max((own_links(own) for own in graph["nodes"] if own["type"] == node), default=-1)
        return "FLUX" not in path.stem and links > 0, links, -len(graph["nodes"])

    richest = max(sorted((ROOT / "workflows").glob("*.json")), key=rank)
    if rank(richest)[1] < 0:
        raise SetupError(f"no shipped workflow holds {node}; name its usual neighbors in COMPANY.")
    return richest


def own_links(node):
    before = sum(slot["link"] is not None for slot in node.get("inputs", []))
    return before + sum(len(slot["links"] or []) for slot in node.get("outputs", []))


if __name__ == "__main__":
    main()
