"""diffusers models from ComfyUI's single files: a FLUX transformer in BFL's layout, a VAE in TAESD's."""

import re

import torch
from safetensors.torch import load_file

from ..fluxir_core.adapter import FluxDimensions, bfl_to_diffusers

LATENT_CHANNELS = 16


def load_transformer(path):
    """A FluxTransformer2DModel, float32, from a safetensors file in BFL's layout, its sizes read from the weights."""
    from diffusers import FluxTransformer2DModel

    weights = {key: value.float() for key, value in load_file(path).items()}
    dims = FluxDimensions.from_state_dict(weights)
    model = FluxTransformer2DModel(
        in_channels=dims.in_channels,
        num_layers=dims.double_blocks,
        num_single_layers=dims.single_blocks,
        attention_head_dim=dims.hidden_size // dims.num_heads,
        num_attention_heads=dims.num_heads,
        joint_attention_dim=dims.context_dim,
        pooled_projection_dim=dims.vec_dim,
        guidance_embeds=dims.guidance_embed,
        axes_dims_rope=dims.axes_dim,
    )
    model.load_state_dict(bfl_to_diffusers(weights))
    return model


def load_vae(path):
    """An AutoencoderTiny, float32, from a safetensors file in ComfyUI's TAESD layout with 16 latent channels.

    Its latents are in network space: the file's vae_scale and vae_shift, which lead to FLUX's raw latents, are not used.
    """
    from diffusers import AutoencoderTiny

    weights = {key: value.float() for key, value in load_file(path).items() if key.startswith("taesd_")}
    vae = AutoencoderTiny(latent_channels=LATENT_CHANNELS)
    vae.load_state_dict({_to_diffusers(key): value for key, value in weights.items()})
    return vae


def _to_diffusers(key):
    """ComfyUI's decoder counts the clamp in front, which AutoencoderTiny applies in its forward."""
    side, index, rest = re.fullmatch(r"taesd_(encoder|decoder)\.(\d+)\.(.+)", key).groups()
    return f"{side}.layers.{int(index) - (side == 'decoder')}.{rest}"
