"""Networks of ours beside ComfyUI's native FLUX: their weights, managed by ComfyUI, and the frame of the hooks that run them."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io

from .tile_context import see_regions, tiles_of_call

# Distinct conditionings of one sampling run (cond and uncond, split or joint) are few; a graph that schedules many
# prompts should not keep all of them on the GPU.
MAX_PREPARED = 4


EVERYWHERE = (float("inf"), float("-inf"))


# Weights


def make_managed(build, loaded, reload, disable_dynamic=False):
    """A network of ours with the weights of `loaded.state_dict`, moved and offloaded by ComfyUI: a ModelPatcher.

    Args:
        build: `build(loaded, ops=, device=, dtype=)` makes the network.
        loaded: what was read of the file.
        reload: `reload()` reads it again, where ComfyUI wants the network once more: on another device, or without its dynamic
            loader.
        disable_dynamic: without ComfyUI's dynamic loader.
    """
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    offload_device, weights = comfy.model_management.unet_offload_device(), loaded.state_dict
    network = build(loaded, ops=comfy.ops.manual_cast, device=offload_device, dtype=comfy.utils.weight_dtype(weights)).eval()
    patcher = kind(network, load_device=comfy.model_management.get_torch_device(), offload_device=offload_device)
    # Assigned, not copied: ComfyUI's dynamic loader streams weights from the file's memory map, and a file may keep its biases
    # more exactly than its matrices.
    network.load_state_dict(weights, assign=True)
    patcher.cached_patcher_init = (_make_again, (build, reload))
    return patcher


def _make_again(build, reload, disable_dynamic=False):
    return make_managed(build, reload(), reload, disable_dynamic)


class Network:
    """A network of ours (a `patcher` of `make_managed`) that a MODEL loads with itself, as an additional model named `key`.

    Core's MultiGPU and Select Device nodes copy a MODEL to other devices, and its additional models too.
    """

    def __init__(self, key, patcher):
        self.key, self.patcher = key, patcher
        self._copies = WeakKeyDictionary()

    def attach(self, model):
        """Lets `model` (a MODEL of the caller's own) load the network with itself, once."""
        others = model.get_additional_models_with_key(self.key)
        if not any(self._same(other) for other in others):
            model.set_additional_models(self.key, [*others, self.patcher])
        self.follow(model)

    def follow(self, model):
        """Brings the network to the device of `model`: Select Model Device, set to the CPU, moves the MODEL alone."""
        others = model.get_additional_models_with_key(self.key)
        model.set_additional_models(self.key, [_on(other, model.load_device) if self._same(other) else other for other in others])

    def _same(self, other):
        base = getattr(other, "clone_base_uuid", None)
        return other.is_clone(self.patcher) or (base is not None and base == self.patcher.clone_base_uuid)

    def pre_run(self, model_patcher):
        """ON_PRE_RUN, for the MODEL on each device: which copy goes with which FLUX."""
        for other in model_patcher.get_additional_models_with_key(self.key):
            if self._same(other):
                self._copies[model_patcher.model.diffusion_model] = other.model

    def beside(self, flux):
        """The network, or its copy on the device of `flux`."""
        return self._copies.get(flux, self.patcher.model)

    @property
    def devices(self):
        """On how many devices it runs."""
        return max(1, len(self._copies))


def _on(patcher, device):
    """`patcher`, or a copy for another `device`, where core can make one: else each call brings the weights to its device."""
    if patcher.load_device == device or not hasattr(patcher, "deepclone_multigpu"):
        return patcher
    if device.type == "cpu" and patcher.is_dynamic():
        patcher = patcher.clone(disable_dynamic=True)
        patcher.load_device = patcher.offload_device = device
        return patcher
    return patcher.deepclone_multigpu(new_load_device=device)


# Hooks


class ModelCall(NamedTuple):
    """The arguments of a call of native FLUX, but for those by name alone."""

    x: torch.Tensor
    timestep: torch.Tensor
    context: torch.Tensor
    y: torch.Tensor | None
    guidance: torch.Tensor | None
    ref_latents: list | None
    control: dict | None
    transformer_options: dict


class _Prepared(NamedTuple):
    key: tuple
    context: torch.Tensor
    pooled: torch.Tensor
    made: Any


class HooksBesideFlux(ABC):
    """The hooks with which a network of ours steers a native FLUX MODEL: one instance for each node that applies it.

    A subclass says its `key`, its `node`'s name, the memory to `reserve`, and how to `steer` a call.

    patcher: of `make_managed`. strength: factor on every residual.
    start_percent, end_percent: the part of sampling, 0 (noise) to 1 (image), in which it acts.
    """

    key: str
    node: str

    def __init__(self, patcher, strength, start_percent, end_percent):
        self.network, self.strength = Network(self.key, patcher), strength
        self.percent = (start_percent, end_percent)
        self._sigma_range = EVERYWHERE
        self._prepared: list[_Prepared] = []

    @abstractmethod
    def steer(self, network, flux, call, kwargs) -> tuple[ModelCall, dict]:
        """The ModelCall and the arguments by name with which `flux` is called in place of `call` and `kwargs`."""

    @abstractmethod
    def reserve(self, model, noise_shape) -> list[int]:
        """A larger noise shape, whose memory holds the network's activations too; it only feeds ComfyUI's estimate."""

    def apply(self, model, alone=False):
        """Puts the hooks and the network on `model`, a clone of the caller's own; `alone`, in the place of an earlier node's."""
        if alone:
            model.remove_additional_models(self.key)
        for kind, hook in (
            (WrappersMP.DIFFUSION_MODEL, self.diffusion_model),
            (WrappersMP.PREPARE_SAMPLING, self.prepare_sampling),
            (WrappersMP.CALC_COND_BATCH, see_regions),
        ):
            if alone:
                model.remove_wrappers_with_key(kind, self.key)
            model.add_wrapper_with_key(kind, self.key, hook)
        for kind, hook in ((CallbacksMP.ON_PRE_RUN, self.pre_run), (CallbacksMP.ON_CLEANUP, self.cleanup)):
            if alone:
                model.remove_callbacks_with_key(kind, self.key)
            model.add_callback_with_key(kind, self.key, hook)
        self.network.attach(model)

    def pre_run(self, model_patcher):
        """ON_PRE_RUN: sigmas of the percents, known only now because a later node may still change the schedule."""
        self.network.pre_run(model_patcher)
        percent_to_sigma = model_patcher.get_model_object("model_sampling").percent_to_sigma
        start, end = self.percent
        # The ends are open: a schedule may begin a rounding error above the sigma of 0 %.
        self._sigma_range = (
            float(percent_to_sigma(start)) if start > 0 else EVERYWHERE[0],
            float(percent_to_sigma(end)) if end < 1 else EVERYWHERE[1],
        )

    def cleanup(self, _model_patcher):
        """ON_CLEANUP, also after an interrupt or an error: nothing of one run outlives it."""
        self._prepared.clear()

    def prepare_sampling(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: make room for the network's activations."""
        self.network.follow(model)
        return executor(model, self.reserve(model, noise_shape), *args, **kwargs)

    def diffusion_model(
        self,
        executor,
        x,
        timestep,
        context,
        y=None,
        guidance=None,
        ref_latents=None,
        control=None,
        transformer_options={},  # noqa: B006 (as in ComfyUI; it is not changed)
        **kwargs,
    ):
        """DIFFUSION_MODEL: steer the call, in the part of sampling in which the network acts."""
        call = ModelCall(x, timestep, context, y, guidance, ref_latents, control, transformer_options)
        if self._acts_at(timestep):
            flux = executor.class_obj
            call, kwargs = self.steer(self.network.beside(flux), flux, call, kwargs)
        return executor(*call, **kwargs)

    def _acts_at(self, timestep):
        if self._sigma_range == EVERYWHERE:  # spares the device a synchronization
            return True
        start, end = self._sigma_range
        return end <= float(timestep.max()) <= start

    def prepared(self, flux, call, make):
        """What depends on neither x_t nor t, computed once per run for each distinct conditioning and size.

        That is `make(pooled, full, tiles)`: `pooled` (B, vec) is the prompt's, the others are of `tiles_of_call`. Prompts are
        compared by content: cond and uncond take turns in calls of equal shape, and other packs may edit either.
        """
        x, context = call.x, call.context
        pooled = x.new_zeros(len(x), flux.params.vec_in_dim) if call.y is None else call.y[:, : flux.params.vec_in_dim]
        rope = tuple(sorted(call.transformer_options.get("rope_options", {}).items()))
        called = tiles_of_call(call.transformer_options, x, self.node)
        key = (flux, x.shape, x.dtype, x.device, rope, called)
        for entry in self._prepared:
            if entry.key == key and torch.equal(entry.context, context) and torch.equal(entry.pooled, pooled):
                return entry.made
        made = make(pooled, *called)
        del self._prepared[: -MAX_PREPARED * self.network.devices + 1]
        self._prepared.append(_Prepared(key, context.clone(), pooled.clone(), made))
        return made


# Nodes


def strength_inputs(name, strength_tooltip):
    """The inputs strength, start_percent and end_percent of a node that applies the network called `name`."""

    def percent(end, default, tooltip):
        return io.Float.Input(
            f"{end}_percent", default=default, min=0.0, max=1.0, step=0.001, advanced=True, tooltip=f"When {name} {tooltip}"
        )

    return [
        io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.01, tooltip=strength_tooltip),
        percent("start", 0.0, "starts to act: 0 is the first step."),
        percent("end", 1.0, "stops acting: 1 is after the last step."),
    ]


def check_span(node, name, start_percent, end_percent):
    """Raises ValueError in `node`'s name where the network called `name` would never act."""
    if start_percent >= end_percent:
        raise ValueError(
            f"{node}: start_percent {start_percent} is not below end_percent {end_percent}, so {name} would never act; lower "
            "start_percent or set strength to 0."
        )
