"""diffusers models from ComfyUI's single files: a FLUX transformer in BFL's layout, a VAE in TAESD's."""

from pathlib import Path
from typing import Any

import torch

from ...fluxir_core.flux.dimensions import FluxDimensions
from ...fluxir_core.flux.keymap import bfl_to_diffusers
from ...fluxir_core.flux.weight_files import check_floating, read_safetensors

LATENT_CHANNELS = 16


def load_transformer(path, dtype=torch.float32) -> Any:
    """A FluxTransformer2DModel in `dtype` from a safetensors file in BFL's layout, its sizes read from the weights.

    Raises ValueError on a file that cannot be read or is no whole FLUX.1 transformer.
    """
    from diffusers import FluxTransformer2DModel

    weights = _read(path, dtype)
    try:
        dims = FluxDimensions.from_state_dict(weights)
        with torch.device("meta"):
            model = FluxTransformer2DModel(
                in_channels=dims.in_channels,
                num_layers=dims.double_blocks,
                num_single_layers=dims.single_blocks,
                attention_head_dim=dims.hidden_size // dims.num_heads,
                num_attention_heads=dims.num_heads,
                joint_attention_dim=dims.context_dim,
                pooled_projection_dim=dims.vec_dim,
                guidance_embeds=dims.guidance_embed,
                axes_dims_rope=dims.axes_dim,  # pyright: ignore[reportArgumentType]
            )
        model.load_state_dict(bfl_to_diffusers(weights), assign=True)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{Path(path).name} is not a whole FLUX.1 transformer in BFL's layout; "
            "choose a file that ComfyUI's Load Diffusion Model takes."
        ) from error
    return model


def load_vae(path) -> Any:
    """An AutoencoderTiny, float32, from a safetensors file in ComfyUI's TAESD layout with 16 latent channels.

    Its latents are in network space: the file's vae_scale and vae_shift, which lead to raw latents, are not used.
    Raises ValueError on a file that cannot be read or is no such autoencoder.
    """
    from diffusers import AutoencoderTiny

    weights = _read(path, torch.float32)
    vae = AutoencoderTiny(latent_channels=LATENT_CHANNELS)
    try:
        vae.load_state_dict({_to_diffusers(key): value for key, value in weights.items() if key.startswith("taesd_")})
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{Path(path).name} is not an autoencoder of {LATENT_CHANNELS} channels in TAESD's layout "
            "(taesd_encoder.*, taesd_decoder.*); choose the file that belongs to the transformer."
        ) from error
    return vae


def _read(path, dtype):
    _, weights = read_safetensors(path)
    for key, value in weights.items():
        check_floating(Path(path).name, key, value)
    return {key: value.to(dtype) for key, value in weights.items()}


def _to_diffusers(key):
    """ComfyUI's decoder counts the clamp in front, which AutoencoderTiny applies in its forward."""
    side, index, rest = key.removeprefix("taesd_").split(".", 2)
    return f"{side}.layers.{int(index) - (side == 'decoder')}.{rest}"
