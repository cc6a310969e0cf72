"""Running out of a device's memory, in whichever of its ways torch says it."""

import torch

CUDA_ERROR_MEMORY_ALLOCATION = 2


def is_out_of_memory(error):
    """Whether the exception `error` says that memory ran out: an allocation failed in torch, or behind it in CUDA."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    behind = getattr(torch, "AcceleratorError", ())  # since torch 2.8
    code = getattr(error, "error_code", None)
    return isinstance(error, behind) and (code == CUDA_ERROR_MEMORY_ALLOCATION or "out of memory" in str(error).lower())
