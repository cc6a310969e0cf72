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
            node_id="BudgetPlan",
            display_name="Budget Plan",
            category="FluxIR/search",
            description="What a search will cost, before it runs: model calls, verifications, and seconds from one measured step.",
            search_aliases=["nfe", "cost", "estimate time", "tts", "fluxir"],
            is_output_node=True,
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="The steps of the search."),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="quick", tooltip="The search; not used where a schedule is connected."
                ),
                SearchAlgorithm.Input("schedule", optional=True, tooltip="A schedule of your own."),
                io.Guider.Input("guider", optional=True, tooltip="With latent_image: one step is run and timed."),
                io.Latent.Input("latent_image", optional=True, tooltip="With guider: the size to time."),
            ],
            outputs=[
                io.Int.Output(
                    display_name="nfe", tooltip="Model calls for each picture; the most, where the search may stop early."
                ),
                io.Float.Output(
                    display_name="seconds", tooltip="Of model calls, without decoding and verifying; 0 when nothing was timed."
                ),
                io.String.Output(display_name="report", tooltip="Both and the verifications, as JSON."),
            ],
        )

    @classmethod
    def execute(cls, sigmas, preset, schedule=None, guider=None, latent_image=None) -> io.NodeOutput:
        if len(sigmas) < 2:
            raise ValueError("Budget Plan: the sigmas hold no step; use a scheduler with at least one step.")
        if (guider is None) != (latent_image is None):
            raise ValueError("Budget Plan: timing a step needs both guider and latent_image; connect both or neither.")
        report = {"preset": None if schedule else preset, **estimate_cost(schedule or PRESETS[preset], sigmas)}
        report["seconds"] = 0.0
        if guider is not None:
            report["step_seconds"] = _seconds_a_step(guider, latent_image, sigmas)
            report["seconds"] = round(report["step_seconds"] * report["nfe"], 2)
        text = json.dumps(report)
        return io.NodeOutput(report["nfe"], report["seconds"], text, ui={"text": [text]})


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
