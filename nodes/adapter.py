"""Nodes that load a FluxIR adapter, apply it to a FLUX model and condition the model without a text encoder."""

import logging
from functools import partial
from typing import NamedTuple

import comfy.model_patcher
import folder_paths
import torch
from comfy_api.latest import io

from ..fluxir_core.adapter.checkpoint import check_base, load_adapter
from ..fluxir_core.adapter.model import FluxIRAdapter
from .adapter_hooks import NODE, FluxIRHooks
from .beside_flux import check_span, make_managed, strength_inputs
from .degraded_latent import in_model_space
from .folders import ADAPTERS
from .native_flux import attention, flux_dimensions, native_flux
from .runtime import speaking_for

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
        load = partial(load_adapter, folder_paths.get_full_path_or_raise(ADAPTERS, adapter_name))
        with speaking_for("Load FluxIR Adapter"):
            loaded = load()
        logging.info("FluxIR adapter %s: %s", adapter_name, loaded.report)
        weights = loaded.state_dict
        patcher = make_managed(_network, loaded, load)
        return io.NodeOutput(LoadedFluxIR(adapter_name, patcher, weights["null_text"], weights["null_pooled"]))


def _network(loaded, **options):
    return FluxIRAdapter(loaded.config, attention=attention, **options)


class ApplyFluxIRAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRApplyAdapter",
            display_name=NODE,
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
                *strength_inputs(
                    "the adapter",
                    "How much the adapter steers the model. 1 is what it was trained for; 0 is the model without it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The restoring model, for any sampler or guider."),
            ],
        )

    @classmethod
    def execute(cls, model, adapter, degraded, strength, start_percent, end_percent) -> io.NodeOutput:
        base = flux_dimensions(native_flux(model, NODE))
        with speaking_for(f"{NODE}: {adapter.name}"):
            check_base(adapter.patcher.model.config, base)
        check_span(NODE, "the adapter", start_percent, end_percent)
        lq = in_model_space(model, degraded, NODE)
        model = model.clone()
        if strength != 0:
            FluxIRHooks(lq, adapter.patcher, strength, start_percent, end_percent).apply(model)
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
