"""Nodes that load a FluxIR adapter, apply it to a FLUX model and condition the model without a text encoder."""

import logging
from functools import partial
from typing import NamedTuple

import comfy.model_patcher
import comfy.ops
import folder_paths
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io

from ..fluxir_core.adapter.checkpoint import check_base, load_adapter
from ..fluxir_core.adapter.model import FluxIRAdapter
from ..fluxir_core.flux.weight_files import WeightFileError
from .adapter_hooks import FluxIRHooks
from .degraded_latent import in_model_space
from .folders import ADAPTERS
from .native_flux import attach, attention, flux_dimensions, make_managed, native_flux
from .tile_context import see_regions

KEY = "fluxir"
Adapter = io.Custom("FLUXIR_ADAPTER")


class LoadedFluxIR(NamedTuple):
    """A FLUXIR_ADAPTER: `patcher.model` is the FluxIRAdapter; `null_text` (L, context), `null_pooled` (vec)."""

    name: str
    patcher: comfy.model_patcher.ModelPatcher
    null_text: torch.Tensor
    null_pooled: torch.Tensor


class LoadFluxIRAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRLoadAdapter",
            display_name="Load FluxIR Adapter",
            category="FluxIR",
            description="Loads a FluxIR restoration adapter from models/fluxir_adapters.",
            search_aliases=["fluxir", "restoration adapter", "image restoration", "restore photo", "enhance"],
            inputs=[
                io.Combo.Input(
                    "adapter_name",
                    options=folder_paths.get_filename_list(ADAPTERS),
                    tooltip="A FluxIR adapter made for the FLUX model you use. Put files into models/fluxir_adapters; "
                    "mini-flux-fluxir belongs to the bundled mini-flux.",
                ),
            ],
            outputs=[
                Adapter.Output(display_name="adapter", tooltip="The adapter, for Apply FluxIR Adapter."),
            ],
        )

    @classmethod
    def execute(cls, adapter_name) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(ADAPTERS, adapter_name)
        try:
            loaded = load_adapter(path)
        except WeightFileError as error:
            raise WeightFileError(f"Load FluxIR Adapter: {error}") from None
        logging.info("FluxIR adapter %s: %s", adapter_name, loaded.report)
        weights = loaded.state_dict
        build = partial(FluxIRAdapter, loaded.config, ops=comfy.ops.manual_cast, attention=attention)
        patcher = make_managed(build, weights)
        return io.NodeOutput(LoadedFluxIR(adapter_name, patcher, weights["null_text"], weights["null_pooled"]))


class ApplyFluxIRAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRApplyAdapter",
            display_name="Apply FluxIR Adapter",
            category="FluxIR",
            description="Turns a FLUX model into a restorer: sampling then draws a clean version of the degraded image.",
            search_aliases=[
                "fluxir",
                "restore",
                "enhance",
                "denoise",
                "remove noise",
                "deblur",
                "sharpen",
                "jpeg artifacts",
                "low light",
                "super resolution",
                "upscale",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A FLUX model of the size the adapter was made for, with or without LoRAs."),
                Adapter.Input("adapter", tooltip="From Load FluxIR Adapter."),
                io.Latent.Input(
                    "degraded",
                    tooltip="The degraded image from VAE Encode: one for the whole batch, or one for each sampled image. "
                    "The sampled latent must have the same size.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How much the adapter steers the model. 1 is what it was trained for; 0 is the model without it.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="When the adapter starts to act: 0 is the first step.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="When the adapter stops acting: 1 is after the last step.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The restoring model, for any sampler or guider."),
            ],
        )

    @classmethod
    def execute(cls, model, adapter, degraded, strength, start_percent, end_percent) -> io.NodeOutput:
        flux = native_flux(model, "Apply FluxIR Adapter")
        network = adapter.patcher.model
        try:
            check_base(network.config, flux_dimensions(flux))
        except WeightFileError as error:
            raise WeightFileError(f"Apply FluxIR Adapter: {adapter.name}: {error}") from None
        if start_percent >= end_percent:
            raise ValueError(
                f"Apply FluxIR Adapter: start_percent {start_percent} is not below end_percent {end_percent}, so the "
                f"adapter would never act; lower start_percent or set strength to 0."
            )
        lq = in_model_space(model, degraded, "Apply FluxIR Adapter")
        model = model.clone()
        if strength != 0:
            hooks = FluxIRHooks(network, lq, strength, start_percent, end_percent)
            model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, hooks.diffusion_model)
            model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, hooks.prepare_sampling)
            model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, see_regions)
            model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, hooks.pre_run)
            model.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, hooks.cleanup)
            attach(model, KEY, adapter.patcher)
        return io.NodeOutput(model)


class EmptyPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIREmptyPrompt",
            display_name="Empty Prompt (no text encoder)",
            category="FluxIR",
            description="The empty prompt that a FluxIR adapter was trained with. Restoring needs no text encoder.",
            search_aliases=["fluxir", "null text", "null prompt", "no prompt", "zero conditioning"],
            inputs=[
                Adapter.Input(
                    "adapter",
                    tooltip="From Load FluxIR Adapter. It knows the length of the prompt and the guidance it was trained with.",
                )
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="The empty prompt with the adapter's guidance. Connect it to positive. At cfg 1 also connect it to "
                    "negative, which is then not used.",
                ),
            ],
        )

    @classmethod
    def execute(cls, adapter) -> io.NodeOutput:
        guidance = adapter.patcher.model.config.guidance
        return io.NodeOutput([[adapter.null_text[None], {"pooled_output": adapter.null_pooled[None], "guidance": guidance}]])
