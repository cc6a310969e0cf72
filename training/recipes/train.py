"""`fluxir train`: from a configuration to a file that the nodes load."""

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ...fluxir_core.flow.rectified_flow import flux_sigmas
from ...fluxir_core.flux.weight_files import read_metadata, read_safetensors
from ...fluxir_core.lora.few_steps import read_schedules
from ..bundled import find
from ..data.batches import ImageBatches
from ..data.prompts import load_prompt_encoder
from ..diffusers_host.model_folder import model_folder, only_file, open_transformer, open_vae
from ..diffusers_host.transformer import flux_dimensions
from ..engine.fit import fit
from ..engine.processes import make_accelerator
from ..engine.quantize import quantize
from .adapters import check_start, lora_beside, new_adapter, on_base, open_start, start_path
from .config import DistillConfig, FluxIRConfig, ReinforceConfig, UMMFConfig
from .distill import Lessons, StudentObjective
from .export import write_adapter
from .few_step_schedules import GRID, measure_jumps, uniform_schedules
from .fluxir import FluxIRObjective
from .reinforce import ReinforceObjective, check_rewards, rewards_named
from .ummf import UMMFObjective
from .validation import Validation


def train(config, work, out):
    """Trains by `config` (one of `config.RECIPES`), resuming from what `work` holds, and writes the file `out`.

    Started by torchrun or `accelerate launch`, all processes share `work`. A run that was asked to stop writes no file: Stopped is raised.
    """
    work = Path(work)
    check_before(config)
    accelerator, vae, batches, transformer = open_base(config, work)
    start = opened(config, transformer)
    trained = make_trained(config, transformer, start, batches.empty, accelerator.device)
    objective = make_objective(config, trained, vae.decode, batches.empty, accelerator.device)
    given, validate = batches, None
    if isinstance(config, DistillConfig):
        given = make_lessons(config, trained.host.host, start, batches, work, accelerator)
    elif batches.validation:
        validate = Validation(batches, vae.decode, work / "samples", accelerator.is_main_process)
    description = {
        **config.metadata(),
        **before(start),
        "dims": asdict(flux_dimensions(transformer)),
        "data": batches.description,
        "form": trained.form,
        "start": str(start.path) if config.keep and start else None,
    }
    identity = {**config.identity(), "images": batches.fingerprint, "start": start and start.digest}
    accelerator.init_trackers("log", config.metadata())
    try:
        fit(objective, given, config.optimizer, config.run, work, accelerator, validate, identity, description)
    finally:
        accelerator.end_training()
    if accelerator.is_main_process:
        write_adapter(work, out)


def check_before(config):
    """Raises ValueError for what would stop a run of `config` after hours of encoding: its start, or its reward."""
    if config.start or not config.starts_new:
        path = start_path(config)
        check_start(path)
        if isinstance(config, DistillConfig):
            schedules_of(config, path)
    if isinstance(config, ReinforceConfig):
        check_rewards(config.recipe)


def open_base(config, work):
    """The frozen parts of a run of `config` with what it keeps in `work`: (Accelerator, NetworkSpaceVAE, batches, transformer)."""
    precision = "no" if config.base.precision == "float32" else "bf16"
    accelerator = make_accelerator(config.run.sharding, precision, config.log, work)
    dtype = torch.float32 if config.base.precision == "float32" else torch.bfloat16
    vae = open_vae(model_folder(config.base.folder), dtype)
    vae.vae.to(accelerator.device)
    batches = make_batches(config, vae, work, accelerator, dtype)
    transformer = open_transformer(model_folder(config.base.folder), dtype)
    return accelerator, vae, batches, transformer


def jumps_of(config, work, grid, count):
    """Measures the jumps of the start of a configuration, see `few_step_schedules.measure_jumps`.

    Args:
        config: DistillConfig.
        work: folder with the encoded images.
        grid: sigmas (N + 1,), falling.
        count: batches of the configuration that are measured on, a micro-batch at a time.

    Returns:
        (N + 1, N + 1).
    """
    accelerator, _, batches, transformer = open_base(config, Path(work))
    start = open_start(start_path(config), flux_dimensions(transformer))
    freeze(transformer, config.base.precision, False, accelerator.device)
    host = on_base(transformer, start.module.to(accelerator.device), start.form, start.mode).host
    size = config.run.micro_batch
    parts = (
        batches(step, range(first, min(first + size, batches.rows(step))))
        for step in range(count)
        for first in range(0, batches.rows(step), size)
    )
    with accelerator.autocast():
        return measure_jumps(host, parts, grid, config.recipe.guidance, config.run.seed)


def opened(config, transformer) -> Any:
    """The Start of a run of `config`, None where it trains new weights. Raises ValueError on a file that the recipe cannot train."""
    if config.starts_new and not config.start:
        return None
    start = open_start(start_path(config), flux_dimensions(transformer))
    kind = {FluxIRConfig: "a FluxIR adapter", UMMFConfig: "a UMMF LoRA"}.get(type(config))
    if kind and (start.mode is None) != isinstance(config, FluxIRConfig):
        raise ValueError(f"start: {start.path} is no file of {kind}; choose one, or train it by its own recipe.")
    return start


def before(start):
    """What the file of a run says of the training before it: {"trained_before": JSON list of configurations}, and its license."""
    if start is None:
        return {}
    metadata = read_metadata(start.path)
    own = [json.loads(metadata["training_config"])] if "training_config" in metadata else []
    earlier = [*json.loads(metadata.get("trained_before", "[]")), *own]
    license = metadata.get("license", "not stated by the file that the training started from")
    return {"trained_before": json.dumps(earlier, sort_keys=True), "license": license}


def make_batches(config, vae, work, accelerator, dtype):
    """Makes a run's batches, encoded where they are not yet; the text encoders are gone when it returns.

    Args:
        config: of the run.
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
            folder = model_folder(config.base.folder)
            return own.batches(folder, size, run.batch, data.prompts, data.photos, run.seed, device, data.degradation)
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
    parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    files = sorted(path for part in parts for path in (folder / part).rglob("*") if path.is_file())
    found = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if not (folder / "text_encoder").is_dir():  # the empty prompt is the adapter's then, whatever schedules its file is given
        null = read_safetensors(only_file(folder / "fluxir_adapters"))[1].get("null_text")
        found.append(("null_text", hashlib.sha256(b"" if null is None else null.float().numpy().tobytes()).hexdigest(), 0))
    return found


def make_trained(config, transformer, start, empty=None, device="cpu", schedules=None):
    """Makes what a run trains, on the frozen base.

    Args:
        config: of the run.
        transformer: FluxTransformer2DModel, which is frozen as `config.base` says.
        start: what `opened` gave.
        empty: the empty prompt's (text, pooled), for a new adapter's file.
        device: of what is trained, and of the base unless it is sharded.
        schedules: {steps: sigmas} of a student; None for those of the start's file.

    Returns:
        Trained.
    """
    module, form, mode = (start.module, start.form, start.mode) if start else new_adapter(config, transformer, empty)
    if next(module.parameters()).device != torch.device(device):  # a plan's tensors without data cannot be moved
        module.to(device)
    # FSDP itself takes the base to the device, block by block, and leaves each process its shard alone.
    freeze(
        transformer, config.base.precision, config.base.gradient_checkpointing, "cpu" if config.run.sharding == "fsdp" else device
    )
    trained = on_base(transformer, module, form, mode)
    rank = getattr(config.adapter, "rank", None) if isinstance(config, (ReinforceConfig, DistillConfig)) else None
    if rank is None:
        return trained
    schedules = schedules or schedules_of(config, start.path) if isinstance(config, DistillConfig) else None
    return lora_beside(trained.host, rank, config.run.seed, schedules)


def schedules_of(config, path):
    """{steps: sigmas} that the student of `config` (DistillConfig) learns. Raises ValueError where the start's file `path` has none."""
    schedules = read_schedules(path)
    if not schedules:
        raise ValueError(f"start: {Path(path).name} has no schedules; run `fluxir schedule` with the same configuration first.")
    return uniform_schedules(schedules) if config.recipe.schedules == "uniform" else schedules


def make_lessons(config, teacher, start, batches, work, accelerator):
    """Makes the lessons of `config` (DistillConfig) that `work` does not hold yet.

    Args:
        config: of the run.
        teacher: the host of the start, without the student.
        start: what `opened` gave.
        batches: of images.
        work: Path of the run's folder.
        accelerator: of this process; each makes its share.

    Returns:
        Lessons, the batches for `fit`.
    """
    recipe, device = config.recipe, accelerator.device
    lessons = Lessons(work / f"lessons-{recipe.schedules}", schedules_of(config, start.path), recipe.lessons, batches, device)
    identity = {"base": asdict(config.base), "data": asdict(config.data), "start": start.digest, "images": batches.fingerprint}
    identity["base"].pop("gradient_checkpointing")
    identity["batch"] = config.run.batch
    lessons.make(
        teacher,
        batches,
        flux_sigmas(GRID, shift=0),
        recipe.guidance,
        recipe.noise_tone,
        config.run.micro_batch,
        config.run.seed,
        {**identity, "guidance": recipe.guidance, "noise_tone": recipe.noise_tone, "seed": config.run.seed},
        accelerator.process_index,
        accelerator.num_processes,
        None if config.base.precision == "float32" else torch.bfloat16,
    )
    accelerator.wait_for_everyone()
    return lessons


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


def make_objective(config, trained, decode, empty=None, device="cpu"):
    """Makes what `fit` minimizes.

    Args:
        config: of the run.
        trained: what `make_trained` gave.
        decode: the VAE's decoder, on latents (B, 16, h, w) in network space.
        empty: the empty prompt's (text (L, context), pooled (vec,)), which UMMF's recipe needs.
        device: of verifiers.

    Returns:
        An Objective.

    Raises:
        ValueError: a reward's verifier or its weights are missing.
    """
    if isinstance(config, ReinforceConfig):
        return ReinforceObjective(trained.host, config.recipe, rewards_named(config.recipe, decode, device), trained.adapter)
    if isinstance(config, DistillConfig):
        return StudentObjective(trained.host, config.recipe)
    if isinstance(config, UMMFConfig):
        return UMMFObjective(trained.host, config.recipe, empty)
    return FluxIRObjective(trained.host, decode, config.recipe)
