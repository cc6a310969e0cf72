"""What a training run will need, before anything is spent: every tensor of one real step, on tensors without data."""

import gc
import json
import weakref
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ...fluxir_core.flux.dimensions import FLUX_DEV
from ...fluxir_core.flux.tokens import image_ids
from ...fluxir_core.ummf.mode import ConditionMode
from ..bundled import find
from ..data.batch import Batch
from ..diffusers_host.single_file import LATENT_CHANNELS
from ..diffusers_host.transformer import flux_dimensions
from ..engine.draws import Draws
from .adapters import FLUXIR, open_start, rebuilt, start_path
from .config import DistillConfig, FluxIRAdapterConfig, ReinforceConfig
from .distill import Lesson
from .few_step_schedules import GRID
from .reinforce import CLOSENESS, call, rollout_sigmas

NF4_BYTES = 0.5 + 4 / 64
"""Of a weight: four bits, and one float32 for every 64."""


STATES = {"adamw": 8.0, "adamw8bit": 2 * (1 + 4 / 256), "prodigy": 16.0}
"""Bytes of each optimizer's state for a parameter."""


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


ATTENTION = {
    _flash: lambda query, key, value, *_rest, **_more: sdpa_flop_count(query, key, value),
    _flash_backward: lambda grad, query, key, value, *_rest, **_more: sdpa_backward_flop_count(grad, query, key, value),
}
"""torch's own formulas for the CPU's attention, which its counter leaves out."""


PRECISION = 1.01
"""The factor by which the memory passes its peak before garbage is collected and a new one is taken down."""


def print_memory_plan(config):
    """Prints `plan_memory(config)` as JSON."""
    print(json.dumps(plan_memory(config), indent=2))


def plan_memory(config):
    """What one process of a run by `config` needs, for FLUX.1-dev, or the miniature where `config` names it.

    Returns parameters; bytes in GB (1e9) of the base, the decoder, the adapter (weights, gradients, moving average, optimizer
    state), of the activations at their peak with the largest bucket, and the sum, `peak_gb`, to which a GPU adds its context
    (about 0.6 GB) and DDP over several processes the gradients once more; operations of a step over the whole batch, and the
    hours of the run at 100 TFLOP/s. FSDP shares base and adapter among the processes: divide those by their number.
    """
    from torch._subclasses import FakeTensorMode

    form = start_form(config)
    if isinstance(config, ReinforceConfig):
        rollout_sigmas(config.recipe.rollout_steps, config.recipe.shift)  # numbers cannot be read from tensors without data
        config = replace(config, recipe=replace(config.recipe, reward=[CLOSENESS]))  # nor can verifiers be loaded among them
    with FakeTensorMode():
        # No kernel of another library runs without data: a quantized base counts as bfloat16, but for its weights.
        computed = config.base.precision if config.base.precision == "float32" else "bf16"
        base = replace(config.base, precision=computed)
        objective, batch = random_objective(replace(config, base=base), form=form), random_batch(config)
        static = _static_bytes(config, objective)
        trained = [p for p in objective.adapter.parameters() if p.requires_grad]
        gradients = sum(p.numel() * p.element_size() for p in trained)
        accumulates = accumulate(config, trained)
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as operations, _Allocations() as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=config.base.precision != "float32"):
                losses = objective(batch, _NoDraws(len(batch.clean)))
            losses["loss"].backward()
        further = _beside_the_steps(config, objective, batch)
    activations = live.peak if accumulates else max(0, live.peak - gradients)
    flops = operations.get_total_flops() * config.run.batch / config.run.micro_batch
    sizes = {**static, "gradients": gradients, "activations": activations}
    return {
        "model": config.base.folder if bundled(config) else "FLUX.1-dev",
        "precision": config.base.precision,
        "base_parameters": sum(p.numel() for p in objective.transformer.parameters()),
        "trained_parameters": sum(p.numel() for p in trained),
        **{f"{name}_gb": round(size / 1e9, 4) for name, size in sizes.items()},
        "peak_gb": round(sum(sizes.values()) / 1e9, 4),
        "tflop_per_step": round(flops / 1e12, 3),
        "hours_at_100_tflop_per_s": round(config.run.steps * flops / 1e14 / 3600, 2),
        **further,
    }


def bundled(config):
    """The bundled model that `config` trains on, or on another one of its kind; None for FLUX.1-dev."""
    return find(config.base.folder) or find(config.data.images)


def start_form(config):
    """(form, ConditionMode or None) of what a run of `config` starts from: its file's, or of an adapter of the usual rank where the
    file is not there yet; None where it starts new."""
    if config.starts_new:
        return None  # its own adapter section says the form
    try:
        path = start_path(config)
    except ValueError:  # the model folder is not there yet
        path = None
    if path is None or not path.is_file():
        adapter = {**asdict(FluxIRAdapterConfig()), "text_tokens": config.data.text_tokens}
        return {"kind": FLUXIR, "config": adapter}, None
    start = open_start(path)
    return start.form, start.mode


def _beside_the_steps(config, objective, batch):
    """What a run costs before its steps and beside them: encoding images anew, or keeping them, and making lessons."""
    height, width = max(config.data.sizes, key=lambda size: size[0] * size[1])
    if find(config.data.images):
        found = {}
    else:
        with FlopCounterMode(display=False) as operations, torch.no_grad():
            objective.vae.encode(torch.zeros(2, 3, height, width, dtype=objective.vae.dtype))
        kept = 2 * config.data.versions * LATENT_CHANNELS * (height // 8) * (width // 8) * 2
        found = {
            "encoding_tflop_per_step": round(operations.get_total_flops() * config.run.batch / 1e12, 3),
            "cache_gb_per_1000_images": round(1000 * kept / 1e9, 3),
        }
    if isinstance(config, DistillConfig):
        host, kept = objective.host.host, {t for sigmas in SCHEDULES.values() for t in sigmas[1:]}
        precise = config.base.precision == "float32"
        counted = FlopCounterMode(display=False, custom_mapping=ATTENTION)
        with counted as operations, torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            call(host, batch, batch.noise, batch.weights, config.recipe.guidance)
        images = config.recipe.lessons * config.run.batch
        flops = operations.get_total_flops() / config.run.micro_batch * images * GRID
        size = images * batch.clean[0].numel() * (3 * 4 + 2 * len(kept))
        found |= {"lessons_gb": round(size / 1e9, 3), "lessons_hours_at_100_tflop_per_s": round(flops / 1e14 / 3600, 2)}
    return found


def accumulate(config, parameters):
    """Where a step of `config` has several micro-batches, gives `parameters` the gradients of an earlier one, which are then
    there throughout. Returns whether it has."""
    several = config.run.batch > config.run.micro_batch
    if several:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
    return several


SCHEDULES = {1: [0.943, 0.0], 2: [0.943, 0.5, 0.0], 4: [0.943, 0.75, 0.5, 0.25, 0.0]}
"""Few-step schedules of the usual length."""


class StandIn(NamedTuple):
    """In the place of a Start: the same module with other weights."""

    module: torch.nn.Module
    form: dict
    mode: ConditionMode | None


def random_objective(config, device="cpu", form=None):
    """The objective of `config` on a base with random weights of FLUX.1-dev's size, or the miniature's, on `device`; its
    `vae` is beside it. `form` is that of what it starts from, see `start_form`."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    from ..diffusers_host.model_folder import NetworkSpaceVAE
    from .train import make_objective, make_trained

    dtype = torch.float32 if config.base.precision == "float32" else torch.bfloat16
    own = bundled(config)
    with _default_dtype(dtype):  # float32 on the way would be 48 GB
        sizes: dict[str, Any] = own.transformer() if own else {"guidance_embeds": FLUX_DEV.guidance_embed}
        transformer = FluxTransformer2DModel(**sizes)
        with torch.device(device):
            vae = own.vae() if own else AutoencoderKL(**FLUX_VAE)
    with torch.device(device):
        start = form and StandIn(rebuilt(form[0], flux_dimensions(transformer)), *form)
        trained = make_trained(config, transformer, start, device=device, schedules=SCHEDULES)
    vae = NetworkSpaceVAE(vae.eval().requires_grad_(False))
    dims = _dimensions(config)
    empty = torch.zeros(config.data.text_tokens, dims.context_dim), torch.zeros(dims.vec_dim)
    objective = make_objective(config, trained, vae.decode, empty, device)
    objective.vae = vae.vae
    return objective


@contextmanager
def _default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


FLUX_VAE: dict[str, Any] = dict(
    block_out_channels=(128, 256, 512, 512),
    latent_channels=LATENT_CHANNELS,
    layers_per_block=2,
    norm_num_groups=32,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    use_quant_conv=False,
    use_post_quant_conv=False,
    scaling_factor=0.3611,
    shift_factor=0.1159,
)
"""FLUX.1's AutoencoderKL."""


def random_batch(config, device="cpu"):
    """A micro-batch of the largest bucket of `config`, of random numbers."""
    height, width = max(config.data.sizes, key=lambda size: size[0] * size[1])
    rows, grid, dims = config.run.micro_batch, (height // 8, width // 8), _dimensions(config)
    with torch.device(device):
        clean, degraded = torch.randn(2, rows, grid[0] * grid[1] // 4, 4 * LATENT_CHANNELS)
        text, pooled = torch.randn(rows, config.data.text_tokens, dims.context_dim), torch.randn(rows, dims.vec_dim)
        batch = Batch(clean, degraded, text, pooled, image_ids(*grid).to(device), grid)
        if not isinstance(config, DistillConfig):
            return batch
        sigmas, ones = SCHEDULES[max(SCHEDULES)], torch.ones(rows)
        return Lesson(**vars(batch), noise=clean, states=dict.fromkeys(sigmas[1:], clean), weights=ones, sigmas=sigmas)


def _dimensions(config):
    own = bundled(config)
    if own is None:
        return FLUX_DEV
    sizes = own.transformer()
    return SimpleNamespace(context_dim=sizes["joint_attention_dim"], vec_dim=sizes["pooled_projection_dim"])


def _static_bytes(config, objective):
    trained = sum(p.numel() for p in objective.adapter.parameters() if p.requires_grad)
    base = 0.0
    for name, weight in objective.transformer.named_parameters():
        matrix = weight.ndim == 2 and "transformer_blocks." in name
        small = {"fp8": 1.0, "nf4": NF4_BYTES}.get(config.base.precision, weight.element_size())
        base += weight.numel() * (small if matrix else weight.element_size())
    return {
        "base": base,
        "vae": sum(p.numel() * p.element_size() for p in objective.vae.parameters()),
        "adapter": sum(p.numel() * p.element_size() for p in objective.adapter.parameters()),
        "average": 4 * trained,
        "optimizer": STATES[config.optimizer.name] * trained,
    }


class _NoDraws(Draws):
    """Draws of the right shapes and no values: tensors without data have none."""

    def __init__(self, rows):
        self.rows, self.device = list(range(rows)), "cpu"

    def normal(self, shape):
        return torch.empty(len(self.rows), *shape)

    def each(self, draw):
        return torch.cat([draw(None) for _ in self.rows])

    def keeps(self, dropped):
        return [True] * len(self.rows)

    def below(self, limit):
        return [0] * len(self.rows)


class _Allocations(TorchDispatchMode):
    """Follows the memory of the tensors made inside it: `peak` is the most bytes alive at once.

    Tensors without data are Python objects: gradient checkpointing leaves them in cycles, which are collected before they
    make a new peak.
    """

    def __enter__(self):
        self.live = self.peak = 0
        self._known = set()
        gc.freeze()  # what was there before is no candidate: collecting is quick
        return super().__enter__()

    def __exit__(self, *raised):
        gc.unfreeze()
        return super().__exit__(*raised)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = set()
        tree_map_only(torch.Tensor, lambda tensor: given.add(tensor.untyped_storage()._cdata), (args, kwargs or {}))
        result = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, lambda tensor: self._note(tensor.untyped_storage(), given), result)
        return result

    def _note(self, storage, given):
        key = storage._cdata
        if key in self._known or key in given:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        weakref.finalize(storage, self._gone, key, size)
        if self.live > PRECISION * self.peak:
            gc.collect()
            self.peak = max(self.peak, self.live)

    def _gone(self, key, size):
        self._known.discard(key)
        self.live -= size
