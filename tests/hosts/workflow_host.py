"""What the shipped workflows need in order to run in a test: small files of the names they ask for, and substitutes."""

import json
import shutil
import socket
from pathlib import Path

from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.tools.samples import SAMPLES
from PIL import Image

from ..unit.public_captioner import write_qwen_folder
from ..unit.public_layouts import write_clip_folder
from . import public_restorers
from .tiny import write_tiny, write_tiny_lora, write_tiny_remover, write_tiny_student

PACK = Path(__file__).resolve().parents[2]
MINIATURE = PACK / "models" / "miniature"
PROMPT = "prompt"
SIZE = 101, 70
"""Of the photos in tests, in pixels: parts of the shipped ones, of sides that are no multiples of anything."""
LORA = "mini-flux-ummf.safetensors"
STUDENT = "mini-flux-few-steps.safetensors"
STANDS_IN = public_restorers.STANDS_IN | {
    "flux1-dev.safetensors": "mini-flux.safetensors",
    "flux1-dev-kontext_fp8_scaled.safetensors": "mini-flux.safetensors",
    "flux1-dev-ummf.safetensors": LORA,
    "ae.safetensors": "mini-flux-vae.safetensors",
}


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def read(name, folder="workflows"):
    return json.loads((PACK / folder / name).read_text(encoding="utf-8"))


def node_of(graph, kind):
    """The id of the one node of class `kind` in `graph` (API format)."""
    (found,) = (node for node, content in graph.items() if content["class_type"] == kind)
    return found


def stock(base, scratch, size=SIZE):
    """Give the server in `base` tiny weights for those that the pack does not ship, and photos of the shipped names."""
    models = base / "models"
    used = {key: MINIATURE / key / path.name for key, path in write_tiny(scratch).items()}
    for key, shipped in used.items():
        if not shipped.exists():
            used[key] = models / key / shipped.name
            used[key].parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scratch / key / shipped.name, used[key])
    if not (MINIATURE / "loras" / LORA).exists():
        write_tiny_lora(models / "loras" / LORA, load_adapter(used["fluxir_adapters"]).config.dims)
    if not (MINIATURE / "loras" / STUDENT).exists():
        write_tiny_student(models / "loras" / STUDENT, load_adapter(used["fluxir_adapters"]).config.dims)
    write_tiny_remover(models / "upscale_models" / "RealESRGAN_x4plus.safetensors")
    if not (models / "model_patches" / "lucidflux.pth").exists():
        public_restorers.write_restorers(models, load_adapter(used["fluxir_adapters"]).config.dims)
    captioner = models / "fluxir_captioners" / "Qwen2.5-VL-7B-Instruct"
    if not captioner.exists():
        captioner.mkdir(parents=True)
        write_qwen_folder(captioner)
    judge = models / "fluxir_verifiers" / "clip-vit-large-patch14"
    if not judge.exists():
        judge.mkdir(parents=True)
        write_clip_folder(judge)
    (base / "input").mkdir(exist_ok=True)
    for sample in SAMPLES.glob("*.jpg"):
        with Image.open(sample) as photo:
            photo.crop((200, 100, 200 + size[0], 100 + size[1])).save(base / "input" / sample.name, quality=95)


SMALL = {
    "ImageScaleToTotalPixels": {"inputs": {"megapixels": 0.01}},
    "FluxIRTileModel": {"inputs": {"tile": 64}},
    "FluxKontextImageScale": {
        "class_type": "ImageScale",
        "inputs": {"upscale_method": "area", "width": 96, "height": 64, "crop": "disabled"},
    },
}
"""What of a graph for large models is made smaller, by class: its inputs, and where it has none for the size its class."""


def on_miniature_weights(graph):
    """`graph` with the miniature's files for FLUX.1's, and its empty prompt for the text encoders, which have no miniature.

    A prompt that another node writes is shown as PROMPT instead, so that what writes it runs. Images, tiles and crops of graphs
    for large models are made small.
    """
    graph = json.loads(json.dumps(graph))
    kinds = {node["class_type"] for node in graph.values()}
    large = any(value in STANDS_IN for node in graph.values() for value in node["inputs"].values() if isinstance(value, str))
    for node in list(graph.values()):
        kind, inputs = node["class_type"], node["inputs"]
        for key, value in list(inputs.items()):
            own = STANDS_IN.get(value) if isinstance(value, str) else None
            if isinstance(own, dict):
                node |= own
            elif own:
                inputs[key] = own
        if kind == "VAELoader" and "FluxIRApplyVAELoRA" in kinds:  # the miniature's VAE is none of FLUX's kind
            node |= {"class_type": "FluxIRTestFluxVAE", "inputs": {}}
        elif kind == "DualCLIPLoader":
            node |= {"class_type": "FluxIRLoadAdapter", "inputs": {"adapter_name": "mini-flux-fluxir.safetensors"}}
        elif kind == "CLIPTextEncode" and "DualCLIPLoader" in kinds:
            node |= {"class_type": "FluxIREmptyPrompt", "inputs": {"adapter": inputs["clip"]}}
            if isinstance(inputs["text"], list):
                graph[PROMPT] = {"class_type": "PreviewAny", "inputs": {"source": inputs["text"]}}
        elif kind == "CLIPTextEncode":
            node |= {"class_type": "FluxIRTestPrompt", "inputs": {"text": inputs["text"]}}
        elif kind == "PrimitiveInt":
            inputs["value"] //= 16
        elif kind in SMALL and large:
            node["class_type"] = SMALL[kind].get("class_type", kind)
            inputs |= SMALL[kind]["inputs"]
    return {key: node for key, node in graph.items() if node["class_type"] != "CLIPLoader"}
