"""The node that says what a search costs before anything runs."""

import json
import time

import comfy.sample
import torch
from comfy.samplers import KSAMPLER
from comfy_api.latest import io

from ..fluxir_core.flow.rectified_flow import check_sigmas
from ..fluxir_core.searches.presets import PRESETS
from ..fluxir_core.searches.search import estimate_cost
from ..fluxir_core.searches.summary import say_time
from .degraded_latent import check_vae
from .inputs import checked_latent
from .runtime import answer, in_name_of, to_planes
from .search_algorithms import SearchAlgorithm
from .verifiers import Verifier

NODE = "Budget Plan"


class BudgetPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRBudgetPlan",
            display_name=NODE,
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
                io.Vae.Input("vae", optional=True, tooltip="The search's vae: decoding one image is timed, too."),
                Verifier.Input("verifier", optional=True, tooltip="Together with vae: judging one image is timed, too."),
            ],
            outputs=[
                io.Int.Output(
                    display_name="model_calls",
                    tooltip="How often the model runs for each image; the most, if the search may stop early.",
                ),
                io.Float.Output(
                    display_name="seconds",
                    tooltip="Time of the model calls, and of decoding and judging if those were timed. 0 if nothing was.",
                ),
                io.String.Output(display_name="report", tooltip="All numbers as JSON, with how many images are judged."),
            ],
        )

    @classmethod
    def execute(cls, sigmas, preset, search=None, guider=None, latent_image=None, vae=None, verifier=None) -> io.NodeOutput:
        try:
            check_sigmas(sigmas)
        except ValueError as error:
            raise ValueError(f"{NODE}: {error}") from None
        if (guider is None) != (latent_image is None):
            raise ValueError(f"{NODE}: timing a step needs both guider and latent_image; connect both or neither.")
        if verifier is not None and vae is None:
            raise ValueError(f"{NODE}: judging an image needs it decoded; connect vae, too.")
        cost = estimate_cost(search or PRESETS[preset], sigmas)
        report = {
            "preset": None if search else preset,
            "steps": cost["steps"],
            "model_calls": cost["nfe"],
            "model_calls_at_least": cost["nfe_least"],
            "judged_images": cost["verifications"],
            "seconds": 0.0,
        }
        if guider is not None and latent_image is not None:
            samples = comfy.sample.fix_empty_latent_channels(
                guider.model_patcher, latent_image["samples"], latent_image.get("downscale_ratio_spacial")
            )
            checked_latent(NODE, "latent_image", samples, guider.model_patcher.get_model_object("latent_format"))
            report["step_seconds"] = _seconds_a_step(guider, samples, sigmas)
            if vae is not None:
                check_vae(NODE, vae, guider.model_patcher)
                try:
                    report |= _seconds_an_image(vae, verifier, samples)
                except ValueError as error:
                    raise in_name_of(NODE, error) from None
            each = report.get("decode_seconds", 0) + report.get("judge_seconds", 0)
            report["seconds"] = round(report["step_seconds"] * cost["nfe"] + each * cost["verifications"], 2)
        shown = {**answer(say_cost(report)), "report": [json.dumps(report)]}
        return io.NodeOutput(cost["nfe"], report["seconds"], json.dumps(report), ui=shown)


def say_cost(report):
    """The plan in words: "about 30 s, 5 times a normal result: 45 model calls, 22 judged images"."""
    calls, judged = report["model_calls"], report["judged_images"]
    counts = f"{calls} model calls, {judged} judged images"
    if not judged:
        return f"Nothing to search: {report['steps']} steps are too few for this search. Use more steps, or a larger window."
    times = calls / report["steps"]
    if report["seconds"]:
        normal = report["step_seconds"] * report["steps"] + report.get("decode_seconds", 0)
        times = report["seconds"] / max(normal, 1e-9)
    most = "at most" if report["model_calls_at_least"] < calls else "about"
    took = f"{most} {say_time(report['seconds'])}, {times:.1f}" if report["seconds"] else f"{most} {times:.1f}"
    return f"{took.capitalize()} times a normal result: {counts}."


def _seconds_a_step(guider, samples, sigmas):
    """Seconds of one call of the guider's model at the size of the latents `samples`, after one to warm up."""
    found = []

    def two_calls(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for _ in range(2):
            started = time.perf_counter()
            float(model(x, sigmas[:1].expand(len(x)), **(extra_args or {})).sum())  # reading the sum waits for the device
            found.append(time.perf_counter() - started)
        return x

    guider.sample(torch.zeros_like(samples), samples, KSAMPLER(two_calls), sigmas[:2], disable_pbar=True, seed=0)
    return round(found[-1], 5)


def _seconds_an_image(vae, verifier, samples):
    """{"decode_seconds", "judge_seconds"} of one image of the size of the latents `samples`, after one to warm up."""
    latent = torch.randn_like(samples[:1])
    images, decoding = _second_of_two(lambda: to_planes(vae.decode(latent)))
    if verifier is None:
        return {"decode_seconds": decoding}
    _scores, judging = _second_of_two(
        lambda: {name: own.cpu() for name, own in verifier.measure(images.cpu(), images.cpu()).items()}
    )
    verifier.ensemble.forget()
    return {"decode_seconds": decoding, "judge_seconds": judging}


def _second_of_two(function):
    """(what `function` gives, its seconds), timed at its second call."""
    function()
    started = time.perf_counter()
    found = function()
    return found, round(time.perf_counter() - started, 5)
