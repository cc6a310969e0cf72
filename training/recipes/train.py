"""`fluxir train fluxir` and `fluxir train ummf`: from a configuration to a file that the nodes load."""

import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from ...fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from ...fluxir_core.lora.lora import LoRA
from ..bundled import find
from ..data.batches import ImageBatches
from ..data.prompts import load_prompt_encoder
from ..diffusers_host.fluxir_host import FluxIRHost
from ..diffusers_host.model_folder import model_folder, open_transformer, open_vae
from ..diffusers_host.transformer import flux_dimensions
from ..diffusers_host.ummf_host import UMMFHost
from ..engine.fit import fit
from ..engine.processes import make_accelerator
from ..engine.quantize import quantize
from .config import FluxIRConfig
from .export import write_adapter
from .fluxir import FluxIRObjective
from .ummf import UMMFObjective
from .validation import Validation


def train(config, work, out):
    """Trains by `config` (FluxIRConfig or UMMFConfig), resuming from what `work` holds, and writes the file `out`.

    Started by torchrun or `accelerate launch`, all processes share `work`. A run that was asked to stop writes no file: Stopped is raised.
    """
    work = Path(work)
    precision = "no" if config.base.precision == "float32" else "bf16"
    accelerator = make_accelerator(config.run.sharding, precision, config.log, work)
    dtype = torch.float32 if config.base.precision == "float32" else torch.bfloat16
    vae = open_vae(model_folder(config.base.folder), dtype)
    vae.vae.to(accelerator.device)
    batches = make_batches(config, vae, work, accelerator, dtype)

    transformer = open_transformer(model_folder(config.base.folder), dtype)
    adapter = make_adapter(config, transformer, batches.empty).to(accelerator.device)
    # FSDP itself takes the base to the device, block by block, and leaves each process its shard alone.
    device = "cpu" if config.run.sharding == "fsdp" else accelerator.device
    freeze(transformer, config.base.precision, config.base.gradient_checkpointing, device)
    objective = make_objective(config, transformer, adapter, vae.decode, batches.empty)
    validate = None
    if batches.validation:
        validate = Validation(batches, vae.decode, work / "samples", accelerator.is_main_process)
    description = {**config.metadata(), "dims": asdict(flux_dimensions(transformer)), "data": batches.description}
    identity = {**config.identity(), "images": batches.fingerprint}
    accelerator.init_trackers("log", config.metadata())
    try:
        fit(objective, batches, config.optimizer, config.run, work, accelerator, validate, identity, description)
    finally:
        accelerator.end_training()
    if accelerator.is_main_process:
        write_adapter(work, out)


def make_batches(config, vae, work, accelerator, dtype):
    """Makes a run's batches, encoded where they are not yet; the text encoders are gone when it returns.

    Args:
        config: FluxIRConfig or UMMFConfig.
        vae: NetworkSpaceVAE that encodes the images.
        work: Path of the folder that keeps them encoded.
        accelerator: of this process, see `make_accelerator`.
        dtype: that the text encoders compute in.

    Returns:
        The batches for `fit`: ImageBatches, or a bundled model's own.

    Raises:
        ValueError: no image is left to train on, or the model folder cannot read the prompts.
    """
    data, run, device = config.data, config.run, accelerator.device
    if own := find(data.images):
        size = max(max(size) for size in data.sizes)
        with accelerator.main_process_first():  # the others find the photos fetched
            return own.batches(model_folder(config.base.folder), size, run.batch, data.prompts, data.photos, run.seed, device)
    # Loaded when a prompt is not in the cache yet, or no longer: a resumed run never waits for T5.
    encoder = cache(lambda: load_prompt_encoder(config.base.folder, data.text_tokens, device, dtype))
    batches = ImageBatches(
        data,
        run.batch,
        vae.encode,
        lambda prompt: encoder()(prompt),
        work,
        (_files(model_folder(config.base.folder)), str(dtype)),
        run.seed,
        device,
        accelerator.process_index,
        accelerator.num_processes,
        accelerator.wait_for_everyone,
    )
    encoder.cache_clear()
    return batches


def _files(folder):
    """What the images' latents and the prompts' embeddings depend on: the files of `folder` that make them."""
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "fluxir_adapters")
    files = sorted(path for part in parts for path in (folder / part).rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def make_adapter(config, transformer, empty=None):
    """The adapter or LoRA that `config` trains on `transformer`, float32, its output zero.

    `empty`, the empty prompt's (text, pooled), goes into an adapter's file, for graphs without a text encoder.
    """
    dims = flux_dimensions(transformer)
    torch.manual_seed(config.run.seed)  # every process starts with the same adapter
    if not isinstance(config, FluxIRConfig):
        return LoRA.new(dims, config.adapter.rank)
    adapter = FluxIRAdapter(AdapterConfig(dims, text_tokens=config.data.text_tokens, **asdict(config.adapter)))
    later = re.compile(r"transformer_blocks\.(?!0\.)|single_transformer_blocks\.")
    adapter.init_from_base({key: value for key, value in transformer.state_dict().items() if not later.match(key)})
    if empty is not None:
        adapter.null_text.copy_(empty[0])
        adapter.null_pooled.copy_(empty[1])
    return adapter


def freeze(transformer, precision, gradient_checkpointing, device="cpu"):
    """Brings a transformer to the state in which a run keeps it in memory, in place.

    Args:
        transformer: FluxTransformer2DModel.
        precision: "float32", "bf16", "fp8" or "nf4", see `quantize`.
        gradient_checkpointing: trades a quarter of the speed for most of the activations' memory.
        device: where it is kept.

    Returns:
        `transformer`, frozen.

    Raises:
        ValueError: as `quantize`.
    """
    quantize(transformer, precision, device)
    if gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
        transformer.train()  # diffusers checkpoints in training mode alone; FLUX has no dropout
    return transformer.requires_grad_(False)


def make_objective(config, transformer, adapter, decode, empty=None):
    """Makes what `fit` minimizes.

    Args:
        config: FluxIRConfig or UMMFConfig.
        transformer: the frozen FluxTransformer2DModel.
        adapter: what `make_adapter` gave.
        decode: the VAE's decoder, on latents (B, 16, h, w) in network space.
        empty: the empty prompt's (text (L, context), pooled (vec,)), which UMMF's recipe needs.

    Returns:
        A FluxIRObjective or UMMFObjective.
    """
    if isinstance(config, FluxIRConfig):
        return FluxIRObjective(FluxIRHost(transformer, adapter), decode, config.recipe)
    return UMMFObjective(UMMFHost(transformer, adapter, config.adapter.mode), config.recipe, empty)
