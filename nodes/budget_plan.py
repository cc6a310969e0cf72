"""The node that says what a search costs before anything runs."""

import json
import time

import comfy.sample
import comfy.utils
import torch
from comfy.samplers import KSAMPLER
from comfy_api.latest import io

from ..fluxir_core.searches.presets import PRESETS
from ..fluxir_core.searches.search import estimate_cost
from .search_algorithms import SearchAlgorithm


class BudgetPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRBudgetPlan",
            display_name="Budget Plan",
            category="FluxIR/search",
            description="What a search costs, before it runs: model calls, images to judge, and seconds from one timed step.",
            search_aliases=["cost", "estimate time", "how long", "nfe", "tts", "fluxir"],
            is_output_node=True,
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="The steps of the search."),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="quick", tooltip="The search to plan. Not used if search is connected."
                ),
                SearchAlgorithm.Input("search", optional=True, tooltip="A search of your own."),
                io.Guider.Input("guider", optional=True, tooltip="Together with latent_image: one step is run and timed."),
                io.Latent.Input("latent_image", optional=True, tooltip="Together with guider: the size to time."),
            ],
            outputs=[
                io.Int.Output(
                    display_name="model_calls",
                    tooltip="How often the model runs for each image; the most, if the search may stop early.",
                ),
                io.Float.Output(
                    display_name="seconds", tooltip="Time of the model calls, without decoding and judging. 0 if nothing was timed."
                ),
                io.String.Output(display_name="report", tooltip="All numbers as JSON, with how many images are judged."),
            ],
        )

    @classmethod
    def execute(cls, sigmas, preset, search=None, guider=None, latent_image=None) -> io.NodeOutput:
        if len(sigmas) < 2:
            raise ValueError("Budget Plan: the sigmas hold no step; use a scheduler with at least one step.")
        if (guider is None) != (latent_image is None):
            raise ValueError("Budget Plan: timing a step needs both guider and latent_image; connect both or neither.")
        cost = estimate_cost(search or PRESETS[preset], sigmas)
        report = {
            "preset": None if search else preset,
            "steps": cost["steps"],
            "model_calls": cost["nfe"],
            "model_calls_at_least": cost["nfe_least"],
            "judged_images": cost["verifications"],
            "seconds": 0.0,
        }
        if guider is not None:
            report["step_seconds"] = _seconds_a_step(guider, latent_image, sigmas)
            report["seconds"] = round(report["step_seconds"] * cost["nfe"], 2)
        text = json.dumps(report)
        return io.NodeOutput(cost["nfe"], report["seconds"], text, ui={"text": [text]})


def _seconds_a_step(guider, latent, sigmas):
    """Seconds of one call of the guider's model at the size of `latent`, after one to warm up."""
    samples = comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"], latent.get("downscale_ratio_spacial"))
    found = []

    def two_calls(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for _ in range(2):
            started = time.perf_counter()
            float(model(x, sigmas[:1].expand(len(x)), **extra_args).sum())  # reading the sum waits for the device
            found.append(time.perf_counter() - started)
        return x

    guider.sample(torch.zeros_like(samples), samples, KSAMPLER(two_calls), sigmas[:2], disable_pbar=True, seed=0)
    return round(found[-1], 5)
