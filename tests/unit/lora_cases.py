"""Random LoRAs on a tiny FLUX, and what they add."""

import torch
from comfyui_fluxir.fluxir_core.lora.files import check_lora_base, load_lora
from comfyui_fluxir.fluxir_core.lora.lora import LoRA, linear_sizes

from ..hosts.tiny import TINY, flux_weights

WEIGHTS = flux_weights()
BFL_LINEARS = [key.removesuffix(".weight") for key, value in WEIGHTS.items() if value.ndim == 2]


def random_lora(names, dims=TINY, seed=0):
    """Ranks 1 to 3 and scales 0.5, 0.75, 1 by turns."""
    sizes, generator = linear_sizes(dims), torch.Generator().manual_seed(seed)
    lora = LoRA({name: (*sizes[name], 1 + i % 3, 0.5 + i % 3 / 4) for i, name in enumerate(names)}, dims)
    with torch.no_grad():
        for weight in lora.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return lora


def loaded_lora(path, dims=TINY):
    loaded = load_lora(path)
    check_lora_base(loaded, dims)
    lora = LoRA(loaded.shapes, dims)
    lora.load_state_dict(loaded.state_dict)
    return lora


def module_input(name, batch=2, tokens=3):
    width = WEIGHTS[f"{name}.weight"].shape[1]
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(width))


def assert_same_deltas(ours, theirs):
    for name in BFL_LINEARS:
        x = module_input(name)
        one, other = ours.delta(name, x), theirs.delta(name, x)
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, msg=name)
