"""What nodes ask of the running ComfyUI: moving a library's network, showing text on a node, and a drawing as IMAGE."""

import logging
import re
from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.utils
import numpy as np
import torch

from ..fluxir_core.execution.oom import is_out_of_memory
from ..fluxir_core.flux.weight_files import WeightFileError


def make_patcher(module):
    """A ModelPatcher, through which ComfyUI moves and offloads `module`."""
    return comfy.model_patcher.ModelPatcher(
        torch.nn.ModuleList([module]),  # it sets `device`, which transformers' own models refuse
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def load_whole(patchers, memory_required=0):
    """Loads `patchers` of `make_patcher` with `memory_required` bytes to spare; a library's network cannot run in parts.

    Raises ValueError where one does not fit.
    """
    try:
        comfy.model_management.load_models_gpu(list(patchers), memory_required=memory_required, force_full_load=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = max(patcher.model_size() for patcher in patchers) / 2**30
        raise ValueError(f"a network of {size:.1f} GB does not fit into the GPU's memory; use a smaller one.") from None


def current_server():
    """ComfyUI's server, None outside it."""
    try:
        from server import PromptServer  # not before: outside the server this import can fail
    except ImportError:
        return None
    return getattr(PromptServer, "instance", None)


def speaker(node, level=logging.INFO):
    """A function that logs a text and shows it on the node, which asks for the hidden unique_id, also when that has finished."""
    identifier = node.hidden.unique_id if node.hidden is not None else None

    def say(text):
        logging.log(level, text)
        server = current_server()
        if identifier and server:
            server.send_progress_text(text, identifier)

    return say


def show(node, text):
    """Shows `text` on the node while ComfyUI's server runs it; the node asks for the hidden unique_id."""
    speaker(node, logging.DEBUG)(text)


def answer(text):
    """`text` as NodeOutput's ui: what stays on the node when it is done, written there by web/js/answers.js.

    What `show` says is gone then in newer frontends.
    """
    return {"text": [text]}


def in_name_of(node, error):
    """A ValueError of `error` in the name of `node`, unless it bears another node's already; a class's or a subject's name is left out."""
    text = re.sub(r"^([A-Z]\w*|caption|degrade|verify): ", "", str(error))
    return ValueError(text if re.match(r"[A-Z][\w-]*( [\w()-]+)+: ", text) else f"{node}: {text}")


@contextmanager
def speaking_for(node):
    """A WeightFileError of this block bears the name of `node`."""
    try:
        yield
    except WeightFileError as error:
        raise WeightFileError(f"{node}: {error}") from None


def pil_to_image(image):
    """A PIL image as IMAGE, (1, H, W, 3)."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)[None]


def to_planes(images):
    """IMAGE (B, H, W, C), any float type, as (B, 3, H, W) float32."""
    return images[..., :3].float().expand(-1, -1, -1, 3).movedim(-1, 1)


def nodes_of_run(node):
    """{id: (class, inputs)} of the graph that runs, as the hidden prompt has it; empty outside a server."""
    prompt = node.hidden.prompt if node.hidden is not None else None
    return {key: (each["class_type"], each["inputs"]) for key, each in (prompt or {}).items()}
