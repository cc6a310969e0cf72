"""Nodes that sample with test-time scaling: the sampler, the same as a SAMPLER, and the chart of its report."""

import json

import comfy.model_management
import comfy.sample
import comfy.utils
from comfy_api.latest import io

from ..fluxir_core.flow import PRESETS
from ..fluxir_core.image import search_chart
from ..fluxir_core.image.candidates import search_sheet
from .inputs import checked_latent, given_planes
from .runtime import drawn
from .schedules import Schedule
from .search_world import Search
from .verifiers import Verifier

METADATA = "fluxir_search"


def _search_inputs():
    """What both forms of the sampler ask for."""
    return [
        io.Vae.Input(
            "vae",
            tooltip="Decodes the candidates for the verifier. A tiny one, such as taef1, is much faster and "
            "good enough to choose by.",
        ),
        Verifier.Input("verifier", tooltip="What the candidates are judged by, for example Natural Image Verifier."),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default="fast",
            tooltip="The search. fast: four variants a step in the second half. best: from early on, until one is better. "
            "paper: ResFlow-Tuner's. best_of_n: 15 whole pictures. Budget Plan says what each costs.",
        ),
        Schedule.Input("schedule", optional=True, tooltip="A search of your own, from a schedule node; replaces the preset."),
        io.Image.Input(
            "degraded",
            optional=True,
            tooltip="The degraded picture: a result that leaves it is refused, if the schedule has its guard. Any size.",
        ),
        io.Vae.Input("final_vae", optional=True, tooltip="Decodes the finalists for the last contest, when vae is a tiny one."),
        io.Boolean.Input(
            "keep_best",
            default=False,
            tooltip="When you cancel, go on with the best picture so far instead of stopping the whole graph.",
            advanced=True,
        ),
    ]


def _judged(node, degraded):
    """The optional degraded IMAGE as (B, 3, H, W) on the CPU, or None."""
    return None if degraded is None else given_planes(node, "degraded", degraded).cpu()


class TTSSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSSampler",
            display_name="TTS Sampler",
            category="FluxIR/search",
            description="Samples with test-time scaling: tries variants along the way and keeps what the verifier likes best. "
            "Works with any flow-matching model.",
            search_aliases=["test-time scaling", "best of n", "search", "resflow", "verifier", "fluxir"],
            hidden=[io.Hidden.extra_pnginfo],
            inputs=[
                io.Noise.Input("noise", tooltip="The plain sample's noise; its seed also seeds the search."),
                io.Guider.Input("guider", tooltip="The model with its conditioning, from any guider."),
                io.Sigmas.Input("sigmas", tooltip="The steps, down to 0."),
                io.Latent.Input(
                    "latent_image", tooltip="An empty latent, or one to start from with denoise below 1; a noise mask is kept to."
                ),
                *_search_inputs(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The best picture; where the schedule has a guard, never one of "
                    "a lower value in the last contest than the plain sample.",
                ),
                io.Latent.Output(display_name="finalists", tooltip="Everyone in the last contest, the plain sample last."),
                io.String.Output(
                    display_name="report",
                    tooltip="The search as JSON: costs, scores and every round. Also "
                    "saved in the picture's metadata by Save Image.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        noise,
        guider,
        sigmas,
        latent_image,
        vae,
        verifier,
        preset,
        schedule=None,
        degraded=None,
        final_vae=None,
        keep_best=False,
    ) -> io.NodeOutput:
        judged = _judged("TTS Sampler", degraded)
        latent = {k: v for k, v in latent_image.items() if k not in ("downscale_ratio_spacial", "downscale_ratio_temporal")}
        samples = comfy.sample.fix_empty_latent_channels(
            guider.model_patcher, latent_image["samples"], latent_image.get("downscale_ratio_spacial")
        )
        checked_latent("TTS Sampler", "latent_image", samples, guider.model_patcher.get_model_object("latent_format"))
        latent["samples"] = samples
        keys = [int(index) for index in latent.get("batch_index", range(len(samples)))]
        search = Search("TTS Sampler", schedule or PRESETS[preset], vae, verifier, final_vae, judged, keys, keep_best)
        sampled = guider.sample(
            noise.generate_noise(latent),
            samples,
            search.sampler(),
            sigmas,
            denoise_mask=latent.get("noise_mask"),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=noise.seed,
        ).to(comfy.model_management.intermediate_device())
        if search.result is None:
            raise ValueError("TTS Sampler: the sigmas hold no step; use a scheduler with at least one step.")
        report = {"preset": None if schedule else preset, **search.result.report}
        if cls.hidden is not None and cls.hidden.extra_pnginfo is not None:
            cls.hidden.extra_pnginfo[METADATA] = report
        finalists = search.result.finalists.flatten(0, 1).to(sampled)
        plain = {k: v for k, v in latent.items() if k not in ("noise_mask", "batch_index")}
        return io.NodeOutput({**latent, "samples": sampled}, {**plain, "samples": finalists}, json.dumps(report))


class TTSSamplerSelect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSSamplerSelect",
            display_name="TTS Sampler Select",
            category="FluxIR/search",
            description="The TTS Sampler as a SAMPLER, for SamplerCustomAdvanced and every node that takes one.",
            search_aliases=["test-time scaling", "sampler", "fluxir"],
            inputs=_search_inputs(),
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, vae, verifier, preset, schedule=None, degraded=None, final_vae=None, keep_best=False) -> io.NodeOutput:
        name = "TTS Sampler Select"
        judged = _judged(name, degraded)
        search = Search(name, schedule or PRESETS[preset], vae, verifier, final_vae, judged, keep_best=keep_best)
        return io.NodeOutput(search.sampler())


class SearchReportChart(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SearchReportChart",
            display_name="Search Report Chart",
            category="FluxIR/search",
            description="Draws a search: every candidate's score by model calls, the line of the chosen, and the finalists "
            "with their scores.",
            search_aliases=["plot", "search report", "candidate sheet", "contact sheet", "tts", "fluxir"],
            inputs=[
                io.String.Input("report", force_input=True, tooltip="The report of a TTS Sampler."),
                io.Int.Input("picture", default=0, min=0, max=4095, tooltip="Which picture of the batch, counted from 0."),
                io.Image.Input(
                    "finalists",
                    optional=True,
                    tooltip="The TTS Sampler's finalists, decoded: they are shown below "
                    "the chart with their ranks and scores, the winner framed.",
                ),
            ],
            outputs=[io.Image.Output(display_name="chart", tooltip="A picture for Preview Image or Save Image.")],
        )

    @classmethod
    def execute(cls, report, picture, finalists=None) -> io.NodeOutput:
        shown = None if finalists is None else given_planes("Search Report Chart", "finalists", finalists, finite=False)
        try:
            if shown is None:
                chart = search_chart(json.loads(report), picture)
            else:
                chart = search_sheet(json.loads(report), shown, picture)
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError("Search Report Chart: the text is no search report; connect the report of a TTS Sampler.") from None
        except ValueError as error:
            raise ValueError(f"Search Report Chart: {error}") from None
        return io.NodeOutput(drawn(chart))
