"""Random weights of the shipped layouts, small enough to write and sample in a test."""

import math

import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import save_adapter
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions
from comfyui_fluxir.fluxir_core.lora.few_steps import save_few_steps
from comfyui_fluxir.fluxir_core.lora.files import save_lora
from comfyui_fluxir.fluxir_core.lora.lora import LoRA, lora_targets
from comfyui_fluxir.fluxir_core.ummf.mode import ConditionMode
from safetensors.torch import save_file

TINY = FluxDimensions(
    hidden_size=128, num_heads=1, context_dim=64, vec_dim=32, double_blocks=2, single_blocks=2, guidance_embed=True
)


def _linear(weights, generator, name, inputs, outputs, bias=True):
    weights[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs)
    if bias:
        weights[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)


def flux_weights(dims=TINY, seed=0):
    """A FLUX transformer's state dict in BFL layout."""
    weights, generator = {}, torch.Generator().manual_seed(seed)
    hidden, mlp = dims.hidden_size, int(dims.hidden_size * dims.mlp_ratio)

    def linear(*args):
        _linear(weights, generator, *args)

    def norms(name, *kinds):
        for kind in kinds:
            weights[f"{name}.{kind}_norm.scale"] = torch.ones(hidden // dims.num_heads)

    linear("img_in", dims.in_channels, hidden)
    linear("txt_in", dims.context_dim, hidden)
    for name, inputs in (("time_in", 256), ("vector_in", dims.vec_dim), ("guidance_in", 256)):
        if name != "guidance_in" or dims.guidance_embed:
            linear(f"{name}.in_layer", inputs, hidden)
            linear(f"{name}.out_layer", hidden, hidden)
    for i in range(dims.double_blocks):
        for stream in ("img", "txt"):
            block = f"double_blocks.{i}.{stream}"
            linear(f"{block}_mod.lin", hidden, 6 * hidden)
            linear(f"{block}_attn.qkv", hidden, 3 * hidden)
            norms(f"{block}_attn.norm", "query", "key")
            linear(f"{block}_attn.proj", hidden, hidden)
            linear(f"{block}_mlp.0", hidden, mlp)
            linear(f"{block}_mlp.2", mlp, hidden)
    for i in range(dims.single_blocks):
        block = f"single_blocks.{i}"
        linear(f"{block}.modulation.lin", hidden, 3 * hidden)
        linear(f"{block}.linear1", hidden, 3 * hidden + mlp)
        linear(f"{block}.linear2", hidden + mlp, hidden)
        norms(f"{block}.norm", "query", "key")
    linear("final_layer.adaLN_modulation.1", hidden, 2 * hidden)
    linear("final_layer.linear", hidden, dims.in_channels)
    return weights


def vae_weights(seed=0):
    """A TAESD-layout autoencoder's state dict for 16-channel FLUX latents."""
    weights, generator = {}, torch.Generator().manual_seed(seed)

    def conv(name, inputs, outputs, bias=True):
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / math.sqrt(9 * inputs)
        if bias:
            weights[f"{name}.bias"] = torch.zeros(outputs)

    def blocks(half, *positions):
        for position in positions:
            for layer in (0, 2, 4):
                conv(f"taesd_{half}.{position}.conv.{layer}", 64, 64)

    conv("taesd_encoder.0", 3, 64)
    blocks("encoder", 1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
    for position in (2, 6, 10):
        conv(f"taesd_encoder.{position}", 64, 64, bias=False)
    conv("taesd_encoder.14", 64, 16)
    conv("taesd_decoder.1", 16, 64)
    blocks("decoder", 3, 4, 5, 8, 9, 10, 13, 14, 15, 18)
    for position in (7, 12, 17):
        conv(f"taesd_decoder.{position}", 64, 64, bias=False)
    conv("taesd_decoder.19", 64, 3)
    return weights | {"vae_scale": torch.tensor(0.3611), "vae_shift": torch.tensor(0.1159)}


def tiny_adapter(base, dims=TINY, excitation=0.1, seed=0, rank=4, text_tokens=8, inject="after"):
    """An adapter for `base`; `excitation` 0 is the initial adapter, whose output equals the base's."""
    config = AdapterConfig(dims=dims, rank=rank, text_tokens=text_tokens, input="hidden", inject=inject)
    adapter = FluxIRAdapter(config)
    adapter.init_from_base(base)
    generator = torch.Generator().manual_seed(seed)
    if excitation:
        with torch.no_grad():
            for _name, weight in adapter.named_parameters():
                if not weight.any():  # the paper's zero initializations: excitation, M_i, theta_p and theta_y
                    weight.copy_(excitation * torch.randn(weight.shape, generator=generator))
    return adapter


def write_tiny(folder, dims=TINY, **adapter_options):
    """Write transformer, VAE and adapter under the shipped names; returns their paths by ComfyUI folder key."""
    paths = {
        "diffusion_models": folder / "diffusion_models" / "mini-flux.safetensors",
        "vae": folder / "vae" / "mini-flux-vae.safetensors",
        "fluxir_adapters": folder / "fluxir_adapters" / "mini-flux-fluxir.safetensors",
    }
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    base = flux_weights(dims)
    save_file(base, paths["diffusion_models"])
    save_file(vae_weights(), paths["vae"])
    save_adapter(paths["fluxir_adapters"], tiny_adapter(base, dims, **adapter_options), {})
    return paths


def write_tiny_lora(path, dims=TINY, seed=0, rank=4, scale=0.3):
    """Write a UMMF LoRA whose output is not zero; its keys and values are the same at every step."""
    lora, generator = LoRA.new(dims, rank), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in lora.parameters():
            weight.copy_(scale * torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_lora(path, lora, {}, ConditionMode(attention="alone"))


def tiny_student(dims=TINY, seed=5, rank=3, scale=0.1):
    """A few-step LoRA whose output is not zero."""
    lora, generator = LoRA.over(lora_targets(dims), dims, rank), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in lora.parameters():
            weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return lora


STUDENT_SCHEDULES = {1: [0.9, 0.0], 2: [0.95, 0.4, 0.0], 4: [0.95, 0.7, 0.4, 0.2, 0.0]}


def write_tiny_student(path, dims=TINY):
    """Write `tiny_student` with STUDENT_SCHEDULES."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_few_steps(path, tiny_student(dims), STUDENT_SCHEDULES, {})


def write_tiny_remover(path, scale=4, seed=0, change=0.002):
    """Write an upscale model (SRVGGNetCompact) that enlarges `scale` times and changes next to nothing."""
    weights, generator, width = {}, torch.Generator().manual_seed(seed), 8
    for layer, outputs, inputs in ((0, width, 3), (2, 3 * scale**2, width)):
        weights[f"body.{layer}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / math.sqrt(9 * inputs)
        weights[f"body.{layer}.bias"] = torch.zeros(outputs)
    weights["body.1.weight"] = torch.full((width,), 0.1)  # PReLU
    weights["body.2.weight"] *= change  # what the last layer gives is added to the image
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
