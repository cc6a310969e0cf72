"""What nodes ask of the running ComfyUI: moving a library's network, showing text on a node, and a drawing as IMAGE."""

import comfy.model_management
import comfy.model_patcher
import numpy as np
import torch


def moved(module):
    """A ModelPatcher, through which ComfyUI moves and offloads `module`."""
    return comfy.model_patcher.ModelPatcher(
        torch.nn.ModuleList([module]),  # it sets `device`, which transformers' own models refuse
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def show(node, text):
    """Shows `text` on the node while ComfyUI's server runs it; the node asks for the hidden unique_id."""
    if node.hidden is not None and node.hidden.unique_id:
        from server import PromptServer  # not before: outside the server this import can fail

        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)


def drawn(picture):
    """A PIL picture as IMAGE, (1, H, W, 3)."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
