"""A folder of models as `fluxir restore --model` takes it: a FLUX transformer, its VAE, a FluxIR adapter, a UMMF LoRA."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..fluxir_core.adapter import FluxIRAdapter, LoRA, ConditionMode, check_base, check_lora_base, load_adapter, load_lora
from .base_model import flux_dimensions, load_transformer, load_vae

MINIATURE = Path(__file__).resolve().parent.parent / "models" / "miniature"


@dataclass
class Models:
    transformer: torch.nn.Module
    vae: "NetworkSpaceVAE"
    adapter: FluxIRAdapter
    lora: LoRA | None
    mode: ConditionMode | None


class NetworkSpaceVAE:
    """A diffusers VAE that takes pictures in [0, 1] and gives latents in the space the transformer works in."""

    def __init__(self, vae):
        self.vae = vae
        self.scale = vae.config.scaling_factor
        self.shift = getattr(vae.config, "shift_factor", None) or 0.0

    def encode(self, pictures):
        """(B, 3, H, W) in [0, 1] -> (B, 16, H/8, W/8); a variational encoder gives its mode."""
        encoded = self.vae.encode(pictures * 2 - 1)
        raw = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (raw - self.shift) * self.scale

    def decode(self, latents):
        """(B, 16, h, w) -> (B, 3, 8h, 8w), about [0, 1]."""
        return self.vae.decode(latents / self.scale + self.shift).sample / 2 + 0.5


def load_models(folder, device="cpu", dtype=torch.float32):
    """Loads `folder`: "miniature" for the bundled one, or a path.

    A path holds either the three folders of models/miniature (diffusion_models, vae, fluxir_adapters), one safetensors file
    in each, or a diffusers FLUX model (transformer, vae) with a fluxir_adapters folder beside them; in either case a folder
    loras may hold a UMMF LoRA. Raises ValueError with one sentence on a folder that is neither.
    """
    folder = MINIATURE if str(folder) == "miniature" else Path(folder)
    adapter_file = load_adapter(_only_file(folder / "fluxir_adapters"))
    if (folder / "transformer").is_dir():
        from diffusers import AutoencoderKL, FluxTransformer2DModel

        transformer = FluxTransformer2DModel.from_pretrained(folder / "transformer", local_files_only=True, torch_dtype=dtype)
        vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True, torch_dtype=dtype)
    else:
        transformer = load_transformer(_only_file(folder / "diffusion_models"))
        vae = load_vae(_only_file(folder / "vae"))
    check_base(adapter_file.config, flux_dimensions(transformer))
    adapter = FluxIRAdapter(adapter_file.config)
    adapter.load_state_dict(adapter_file.state_dict)
    lora, mode = _load_lora(folder / "loras", adapter_file.config.dims)
    for module in filter(None, (transformer, vae, adapter, lora)):
        module.to(device).eval().requires_grad_(False)
        if next(module.parameters()).dtype != dtype:
            module.to(dtype)
    return Models(transformer, NetworkSpaceVAE(vae), adapter, lora, mode)


def _load_lora(folder, dims):
    if not folder.is_dir():
        return None, None
    loaded = load_lora(_only_file(folder))
    check_lora_base(loaded, dims)
    lora = LoRA(loaded.shapes, dims)
    lora.load_state_dict(loaded.state_dict)
    return lora, loaded.mode


def _only_file(folder):
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(
            f"--model: {folder} holds {len(files)} safetensors files; give a model folder with exactly one there, or 'miniature'."
        )
    return files[0]
