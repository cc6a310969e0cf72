"""Random weights in the layouts of the public restorers that the workflows ask for, at the miniature's sizes.

What has no small form (SigLIP, FLUX.2 and its VAE, the text encoders) is stood in for by nodes of a pack that only tests have.
"""

import json
import math

import torch
from safetensors.torch import save_file

from ..unit.lucidflux_reference import random_weights
from .tiny import write_tiny_lora, write_tiny_remover

FEATURES = 12
STANDS_IN = {
    "flux1-dev-fp8.safetensors": "mini-flux.safetensors",
    "siglip2-so400m-patch16-512.safetensors": {"class_type": "FluxIRTestCLIPVision", "inputs": {"width": FEATURES}},
    "flux-2-klein-4b-fp8.safetensors": {"class_type": "FluxIRTestFlux2", "inputs": {}},
    "flux2-vae.safetensors": {"class_type": "FluxIRTestFlux2VAE", "inputs": {}},
}
"""What runs in the place of a file: another file, or a node in the place of the file's loader."""
ONE_STEP = "omgsr-f-1024"
VAE = {
    "double_z": True,
    "z_channels": 16,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
"""ComfyUI's description of a VAE of FLUX's kind, a quarter as wide."""

NODES = '''
"""Stand-ins for what the workflows load and a test cannot."""

import json
import math
import pathlib
import tempfile

import comfy.clip_vision
import comfy.ldm.flux.model
import comfy.ops
import comfy.sd
import torch


def randomize(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) / math.sqrt(max(1, value[0].numel()))
        if value.ndim > 1
        else torch.ones_like(value) if "norm" in key and key.endswith(("weight", "scale")) else torch.zeros_like(value)
        for key, value in shapes.items()
    }


class CLIPVision:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"width": ("INT", {"default": 12})}})
    RETURN_TYPES, FUNCTION = ("CLIP_VISION",), "load"

    def load(self, width):
        config = {
            "model_type": "siglip_vision_model", "num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "hidden_size": width,
            "image_size": 32, "patch_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2,
            "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        }
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "config.json"
            path.write_text(json.dumps(config))  # older ComfyUIs take a file alone
            model = comfy.clip_vision.ClipVisionModel(str(path))
        model.load_sd(randomize(model.get_sd()))
        return (model,)


class Flux2:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION = ("MODEL",), "load"

    def load(self):
        network = comfy.ldm.flux.model.Flux(
            in_channels=128, out_channels=128, vec_in_dim=None, context_in_dim=64, hidden_size=128, mlp_ratio=3.0, num_heads=1,
            depth=2, depth_single_blocks=2, axes_dim=[32, 32, 32, 32], theta=2000, patch_size=1, qkv_bias=False,
            guidance_embed=False, txt_ids_dims=[3], global_modulation=True, mlp_silu_act=True, ops_bias=False,
            operations=comfy.ops.disable_weight_init,
        )
        weights = {key.replace("_norm.weight", "_norm.scale"): value for key, value in randomize(network.state_dict()).items()}
        return (comfy.sd.load_diffusion_model_state_dict(weights),)


class Flux2VAE:
    """Squares of 16 pixels as 128 times their mean color."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION = ("VAE",), "load"
    latent_channels, latent_dim = 128, 2

    def load(self):
        return (self,)

    def spacial_compression_encode(self):
        return 16

    spacial_compression_decode = spacial_compression_encode

    def encode(self, pixels):
        mean = torch.nn.functional.avg_pool2d(pixels[..., :3].movedim(-1, 1), 16)
        return mean.repeat(1, 43, 1, 1)[:, :128] * 2 - 1

    def decode(self, samples):
        colors = (samples[:, :126].unflatten(1, (42, 3)).mean(1) / 4 + 0.5).clamp(0, 1)
        return torch.nn.functional.interpolate(colors, scale_factor=16, mode="bilinear").movedim(1, -1)


class FluxVAE:
    """A VAE of FLUX's layout, a quarter as wide."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION = ("VAE",), "load"

    def load(self):
        from comfy.ldm.models.autoencoder import AutoencoderKL

        params = {"ddconfig": VAE_CONFIG, "embed_dim": 16}
        weights = randomize(AutoencoderKL(**params).state_dict())
        vae = comfy.sd.VAE(sd=weights, config={"params": params}, dtype=torch.float32)
        vae.latent_channels = 16
        return (vae,)


class Prompt:
    """A prompt of random embeddings, as the text decides."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"text": ("STRING", {})}})
    RETURN_TYPES, FUNCTION = ("CONDITIONING",), "encode"

    def encode(self, text):
        generator = torch.Generator().manual_seed(sum(text.encode()))
        return ([[torch.randn(1, 8, 64, generator=generator), {"guidance": 3.5, "pooled_output": torch.zeros(1, 32)}]],)


NODE_CLASS_MAPPINGS = {
    "FluxIRTestCLIPVision": CLIPVision, "FluxIRTestFlux2": Flux2, "FluxIRTestFlux2VAE": Flux2VAE, "FluxIRTestFluxVAE": FluxVAE,
    "FluxIRTestPrompt": Prompt,
}
'''


TEST_PACK = "fluxir_tests"


def add_nodes(base):
    """Gives the server in `base`, before it starts, the pack of NODES."""
    folder = base / "custom_nodes" / TEST_PACK
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(NODES.replace("VAE_CONFIG", repr(VAE)), encoding="utf-8")


def write_restorers(models, dims):
    """Writes every file that the workflows ask for into `models`, for a base of `dims` (FluxDimensions)."""
    sizes = dict(hidden=dims.hidden_size, context=dims.context_dim, vec=dims.vec_dim, features=FEATURES, inner=24)
    patches = models / "model_patches"
    patches.mkdir(parents=True, exist_ok=True)
    content = {}
    for key, value in random_weights(**sizes).items():
        part, _, name = key.partition(".")
        content.setdefault(part, {})[name] = value
    torch.save(content, patches / "lucidflux.pth")
    generator = torch.Generator().manual_seed(1)
    text, pooled = torch.randn(1, 16, dims.context_dim, generator=generator), torch.randn(1, dims.vec_dim, generator=generator)
    torch.save({"txt": text, "vec": pooled, "prompt": "restore"}, patches / "prompt_embeddings.pt")
    write_tiny_remover(models / "upscale_models" / "general_swinir_v1.safetensors", scale=1)
    _as_pickle(models / "upscale_models" / "general_swinir_v1.safetensors", ".ckpt")
    _write_controlnet(models / "controlnet" / "Flux.1-dev-Controlnet-Upscaler.safetensors", dims)
    write_tiny_lora(models / "loras" / "deblurring.safetensors", dims)
    hidden = dims.hidden_size
    write_peft(models / "loras" / "restore_photo_v4.safetensors", {"transformer.transformer_blocks.0.attn.to_q": (hidden, hidden)})
    one_step = models / "loras" / ONE_STEP
    write_peft(one_step / "flux_adapter" / "adapter_model.safetensors", {"transformer_blocks.0.attn.to_k": (hidden, hidden)}, True)
    write_peft(
        one_step / "vae_encoder_adapter" / "adapter_model.safetensors",
        {"conv_in": (3, 32, 3), "mid_block.attentions.0.to_q": (128, 128)},
        True,
    )


def write_peft(path, modules, peft=False):
    """Writes a LoRA of rank 2 on `modules` {name: (inputs, outputs, kernel)}, and where it is peft's its configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights, generator = {}, torch.Generator().manual_seed(0)
    for name, (inputs, outputs, *kernel) in modules.items():
        sides = kernel * 2
        key = f"base_model.model.{name}" if peft else name
        weights[f"{key}.lora_A.weight"] = torch.randn(2, inputs, *sides, generator=generator) / math.sqrt(inputs)
        weights[f"{key}.lora_B.weight"] = 0.1 * torch.randn(outputs, 2, *[1] * len(sides), generator=generator)
    save_file(weights, path)
    if peft:
        path.with_name("adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}), encoding="utf-8"
        )


def _as_pickle(path, suffix):
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(path)}, path.with_suffix(suffix))
    path.unlink()


def _write_controlnet(path, dims):
    from diffusers import FluxControlNetModel

    torch.manual_seed(0)
    network = FluxControlNetModel(
        num_layers=1,
        num_single_layers=0,
        attention_head_dim=dims.hidden_size // dims.num_heads,
        num_attention_heads=dims.num_heads,
        joint_attention_dim=dims.context_dim,
        pooled_projection_dim=dims.vec_dim,
        guidance_embeds=dims.guidance_embed,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
