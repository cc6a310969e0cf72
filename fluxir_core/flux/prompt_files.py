"""Stored prompts: what FLUX's two text encoders make of a prompt, in a file, so that no text encoder is needed."""

from pathlib import Path
from typing import NamedTuple

import torch

from .pickle_files import read_tensors
from .weight_files import WeightFileError, check_finite

_NAMES = (("prompt.text", "prompt.pooled"), ("txt", "vec"), ("prompt_embeds", "pooled_prompt_embeds"))
"""Of T5's tokens and CLIP's pooled vector: in this pack's files, in LucidFlux's, and as diffusers names them."""


class StoredPrompt(NamedTuple):
    """`text` (L, context), T5's tokens; `pooled` (vec,), CLIP's; `words`, the prompt itself where the file says it."""

    text: torch.Tensor
    pooled: torch.Tensor
    words: str | None


def load_prompt(path):
    """Reads a StoredPrompt from a safetensors file or a pickle of tensors.

    Raises WeightFileError on another file, and on one without a prompt's two tensors, or with NaN or infinity in them.
    """
    name = Path(path).name
    metadata, tensors = read_tensors(path)
    found = next((pair for pair in _NAMES if all(key in tensors for key in pair)), None)
    if found is None:
        raise WeightFileError(
            f"{name} holds no prompt ({' or '.join(' with '.join(pair) for pair in _NAMES)}); choose a file of prompt embeddings, "
            "or write one with `fluxir convert --prompt`."
        )
    text, pooled = (tensors[key] for key in found)
    if 0 not in (*text.shape, *pooled.shape):
        text, pooled = text[0] if text.ndim == 3 else text, pooled[0] if pooled.ndim == 2 else pooled
    if text.ndim != 2 or pooled.ndim != 1 or 0 in (*text.shape, *pooled.shape):
        raise WeightFileError(
            f"{name} holds a prompt of shapes {list(text.shape)} and {list(pooled.shape)} where FLUX needs [tokens, values] and "
            "[values]; choose another file."
        )
    for key, value in zip(found, (text, pooled)):
        check_finite(name, key, value)
    return StoredPrompt(text, pooled, metadata.get("prompt"))


def prompt_weights(prompt):
    """The tensors of a StoredPrompt under this pack's names."""
    return dict(zip(_NAMES[0], (prompt.text, prompt.pooled)))
