"""ComfyUI's own FLUX: recognizing it, its sizes, its attention, and networks of ours beside it."""

import comfy.ldm.flux.model
import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.ldm.modules.attention import optimized_attention

from ..fluxir_core.flux.dimensions import FluxDimensions


def native_flux(model, node) -> comfy.ldm.flux.model.Flux:
    """The FLUX transformer of a MODEL. Raises ValueError in `node`'s name when it is anything else."""
    flux = model.get_model_object("diffusion_model")
    if not isinstance(flux, comfy.ldm.flux.model.Flux):
        kind = type(model.model).__name__  # ComfyUI's name of a kind of models, such as SD3
        if kind == "Flux":
            raise ValueError(
                f"{node}: this FLUX model comes from a loader that replaces its network, such as nunchaku's, and takes no adapters; "
                "load it with Load Diffusion Model."
            )
        raise ValueError(
            f"{node}: this model is of the kind {kind}, but a FLUX.1 model is needed; load one with Load Diffusion Model."
        )
    return flux


def flux_dimensions(flux: comfy.ldm.flux.model.Flux) -> FluxDimensions:
    """The sizes of a loaded FLUX transformer, read from its parameters rather than from possibly quantized weights."""
    params = flux.params
    return FluxDimensions(
        hidden_size=params.hidden_size,
        num_heads=params.num_heads,
        context_dim=params.context_in_dim,
        vec_dim=params.vec_in_dim or 0,
        in_channels=flux.in_channels,
        double_blocks=params.depth,
        single_blocks=params.depth_single_blocks,
        guidance_embed=params.guidance_embed,
        axes_dim=tuple(params.axes_dim),
        theta=params.theta,
        mlp_ratio=params.mlp_ratio,
    )


def attention(query, key, value):
    """ComfyUI's choice of attention for this machine: (B, heads, N, head_dim) to (B, N, hidden)."""
    return optimized_attention(query, key, value, query.shape[1], skip_reshape=True)


def make_managed(build, weights):
    """A network of ours with `weights`, moved and offloaded by ComfyUI: a ModelPatcher.

    `build(device=, dtype=)` makes the network, its layers from comfy.ops.manual_cast.
    """
    offload_device = comfy.model_management.unet_offload_device()
    network = build(device=offload_device, dtype=comfy.utils.weight_dtype(weights)).eval()
    patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=comfy.model_management.get_torch_device(), offload_device=offload_device
    )
    # Assigned, not copied: ComfyUI's dynamic loader streams weights from the file's memory map, and a file may keep its biases
    # more exactly than its matrices.
    network.load_state_dict(weights, assign=True)
    return patcher


def attach(model, key, patcher):
    """Lets `model` (a MODEL of the caller's own) load the managed network with itself, once."""
    others = model.get_additional_models_with_key(key)
    if not any(other.is_clone(patcher) for other in others):
        model.set_additional_models(key, [*others, patcher])
