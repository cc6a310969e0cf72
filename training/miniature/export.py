"""Writes models/miniature: the files ComfyUI's loaders and `fluxir restore` read."""

import hashlib
import json
from pathlib import Path

import torch

from ...fluxir_core.adapter.checkpoint import save_adapter
from ...fluxir_core.flux.keymap import diffusers_to_bfl
from ...fluxir_core.flux.weight_files import write_safetensors
from .autoencoder import widen

FLUX_SCALE, FLUX_SHIFT = 0.3611, 0.1159
"""FLUX's latent scaling: network = (raw - shift) * scale. Stored in the VAE's file, or ComfyUI takes 1 and 0."""


def write(folder, autoencoder, transformer, adapter, training, data):
    """Writes transformer, VAE and adapter in bfloat16, each with metadata saying how it was made.

    Args:
        folder: laid out as models/miniature; it is made where it is missing.
        autoencoder: NarrowTAESD.
        transformer: FluxTransformer2DModel.
        adapter: FluxIRAdapter, brought to bfloat16 in place.
        training: the configuration as a dict, whose hash is in every file.
        data: a sentence on what was trained on.
    """
    configuration = json.dumps(training, sort_keys=True)
    metadata = {
        "training_config": configuration,
        "training_config_hash": hashlib.sha256(configuration.encode()).hexdigest()[:16],
        "data": data,
        "license": "Apache-2.0",
        "base_model": "mini-FLUX",
    }
    folder = Path(folder)
    for name in ("diffusion_models", "vae", "fluxir_adapters"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    base = {key: value.bfloat16() for key, value in diffusers_to_bfl(transformer.state_dict()).items()}
    write_safetensors(folder / "diffusion_models" / "mini-flux.safetensors", base, {**metadata, "kind": "flux_transformer"})

    vae = {key: value.bfloat16() for key, value in widen(autoencoder).items()}
    vae |= {"vae_scale": torch.tensor(FLUX_SCALE), "vae_shift": torch.tensor(FLUX_SHIFT)}
    write_safetensors(folder / "vae" / "mini-flux-vae.safetensors", vae, {**metadata, "kind": "taesd_vae"})

    save_adapter(folder / "fluxir_adapters" / "mini-flux-fluxir.safetensors", adapter.bfloat16(), metadata)
