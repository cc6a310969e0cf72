"""A tiny FLUX.2 of random weights as ComfyUI loads it."""

import math

import torch


def tiny_flux2(seed=0):
    """A MODEL of FLUX.2's layout: one head of 128, two double blocks and two single blocks, 128 latent channels, context 64."""
    import comfy.ldm.flux.model
    import comfy.ops
    import comfy.sd

    network = comfy.ldm.flux.model.Flux(
        in_channels=128,
        out_channels=128,
        vec_in_dim=None,
        context_in_dim=64,
        hidden_size=128,
        mlp_ratio=3.0,
        num_heads=1,
        depth=2,
        depth_single_blocks=2,
        axes_dim=[32, 32, 32, 32],
        theta=2000,
        patch_size=1,
        qkv_bias=False,
        guidance_embed=True,
        txt_ids_dims=[3],
        global_modulation=True,
        mlp_silu_act=True,
        ops_bias=False,
        operations=comfy.ops.disable_weight_init,
    )
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key.replace("_norm.weight", "_norm.scale"): torch.randn(value.shape, generator=generator) / math.sqrt(value.shape[-1])
        if value.ndim > 1
        else torch.ones_like(value)
        for key, value in network.state_dict().items()
    }
    return comfy.sd.load_diffusion_model_state_dict(weights)


def prompt(seed, tokens=8, **options):
    text = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(seed))
    return [[text, {"guidance": 4.0, **options}]]


def latent(seed, height=8, width=8):
    return torch.randn(1, 128, height, width, generator=torch.Generator().manual_seed(seed))
