"""Nodes that sample with test-time search: the sampler, the same as a SAMPLER, and the chart of its report."""

import json

import comfy.model_management
import comfy.sample
import comfy.utils
from comfy_api.latest import io

from ..fluxir_core.flux.weight_files import parse_json
from ..fluxir_core.image.candidates import draw_report
from ..fluxir_core.searches.presets import PRESETS
from ..fluxir_core.searches.summary import summarize
from .inputs import checked_latent, given_planes
from .runtime import answer, pil_to_image
from .search_algorithms import SearchAlgorithm
from .search_metadata import SAMPLER, keep_report
from .search_sampler import SearchSampler
from .verifiers import Verifier

NODE, SELECT_NODE = "TTS Sampler (test-time search)", "TTS Sampler Select (test-time search)"
CHART_NODE = "Search Report Chart"


def _search_inputs():
    """What both forms of the sampler ask for."""
    return [
        io.Vae.Input(
            "vae",
            tooltip="Decodes the candidates for the verifier. A tiny one, such as taef1, is much faster and good enough to choose "
            "by.",
        ),
        Verifier.Input("verifier", tooltip="The judge of the candidates, for example Natural Image Verifier."),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default="quick",
            tooltip="How much to search. quick: at most 3 times the model calls of a normal result. balanced: at most 5 times. "
            "thorough: at most 15 times. The others are methods of papers, about 15 times: see the help page. Budget Plan says "
            "what yours costs.",
        ),
        SearchAlgorithm.Input(
            "search",
            optional=True,
            tooltip="A search of your own, from Evolutionary Search, Stepwise Search or Particle Search. It replaces the preset.",
        ),
        io.Image.Input(
            "degraded",
            optional=True,
            tooltip="The degraded image, of any size. With the baseline check, a result that is more than 1 dB further from it than "
            "the baseline is rejected.",
        ),
        io.Vae.Input(
            "final_vae", optional=True, tooltip="Decodes the final candidates for the last decision, if vae is a tiny one."
        ),
        io.Boolean.Input(
            "keep_best",
            default=False,
            tooltip="If you cancel, go on with the best image so far instead of stopping the whole graph.",
        ),
    ]


def _judged(node, degraded):
    """The optional degraded IMAGE as (B, 3, H, W) on the CPU, or None."""
    return None if degraded is None else given_planes(node, "degraded", degraded).cpu()


class TTSSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=SAMPLER,
            display_name=NODE,
            category="FluxIR/search",
            description="Tries variants while it samples, and keeps what the verifier likes best (test-time search). Works with any "
            "flow-matching model.",
            search_aliases=["test-time scaling", "tts", "best of n", "better quality", "resflow", "verifier", "fluxir"],
            hidden=[io.Hidden.extra_pnginfo, io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Noise.Input(
                    "noise",
                    tooltip="The noise of the baseline, which is the normal result without a search. Its seed also seeds the search.",
                ),
                io.Guider.Input("guider", tooltip="The model with its conditioning, from any guider."),
                io.Sigmas.Input("sigmas", tooltip="The steps, down to 0."),
                io.Latent.Input(
                    "latent_image",
                    tooltip="An empty latent, or one to start from with denoise below 1. Noise masks are respected.",
                ),
                *_search_inputs(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The best image. With the baseline check you never get something the verifier likes less than the "
                    "normal result.",
                ),
                io.Latent.Output(
                    display_name="final_candidates",
                    tooltip="All final candidates. With the baseline check the last one is the baseline, the normal result.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The search as JSON: costs, scores, every round, and the gain by a verifier that the search did not see. "
                    "Save Image also saves it in the image's metadata.",
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
        search=None,
        degraded=None,
        final_vae=None,
        keep_best=False,
    ) -> io.NodeOutput:
        judged = _judged(NODE, degraded)
        latent = {k: v for k, v in latent_image.items() if k not in ("downscale_ratio_spacial", "downscale_ratio_temporal")}
        samples = comfy.sample.fix_empty_latent_channels(
            guider.model_patcher, latent_image["samples"], latent_image.get("downscale_ratio_spacial")
        )
        checked_latent(NODE, "latent_image", samples, guider.model_patcher.get_model_object("latent_format"))
        latent["samples"] = samples
        keys = [int(index) for index in latent.get("batch_index", range(len(samples)))]
        run = SearchSampler(NODE, search or PRESETS[preset], vae, verifier, final_vae, judged, keys, keep_best)
        sampled = guider.sample(
            noise.generate_noise(latent),
            samples,
            run.sampler(),
            sigmas,
            denoise_mask=latent.get("noise_mask"),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=noise.seed,
        ).to(comfy.model_management.intermediate_device())
        if run.result is None:
            raise ValueError(f"{NODE}: the sigmas hold no step; use a scheduler with at least one step.")
        report = {"preset": None if search else preset, **run.result.report}
        keep_report(cls.hidden, report)
        finalists = run.result.finalists.flatten(0, 1).to(sampled)
        unmasked = {k: v for k, v in latent.items() if k not in ("noise_mask", "batch_index")}
        best = {**latent, "samples": sampled}
        return io.NodeOutput(best, {**unmasked, "samples": finalists}, json.dumps(report), ui=answer(summarize(report)))


class TTSSamplerSelect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRTTSSamplerSelect",
            display_name=SELECT_NODE,
            category="FluxIR/search",
            description="TTS Sampler (test-time search) as a SAMPLER, for SamplerCustomAdvanced and every node that takes one.",
            search_aliases=["test-time scaling", "tts", "best of n", "fluxir"],
            inputs=_search_inputs(),
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, vae, verifier, preset, search=None, degraded=None, final_vae=None, keep_best=False) -> io.NodeOutput:
        judged = _judged(SELECT_NODE, degraded)
        run = SearchSampler(SELECT_NODE, search or PRESETS[preset], vae, verifier, final_vae, judged, keep_best=keep_best)
        return io.NodeOutput(run.sampler())


class SearchReportChart(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRSearchReportChart",
            display_name="Search Report Chart",
            category="FluxIR/search",
            description="Draws a search: every candidate's score by model calls, a line through the chosen ones, a second line by "
            "a verifier that the search did not see, and the final candidates with their scores.",
            search_aliases=["plot", "graph", "contact sheet", "tts", "fluxir"],
            inputs=[
                io.String.Input("report", force_input=True, tooltip="The report of TTS Sampler (test-time search)."),
                io.Int.Input("image_index", default=0, min=0, max=4095, tooltip="Which image of the batch, counted from 0."),
                io.Image.Input(
                    "final_candidates",
                    optional=True,
                    tooltip="The final candidates of TTS Sampler (test-time search), decoded. They are shown below the chart with "
                    "their ranks and scores; the winner is framed.",
                ),
            ],
            outputs=[io.Image.Output(display_name="chart", tooltip="An image for Preview Image or Save Image.")],
        )

    @classmethod
    def execute(cls, report, image_index, final_candidates=None) -> io.NodeOutput:
        shown = None if final_candidates is None else given_planes(CHART_NODE, "final_candidates", final_candidates, finite=False)
        try:
            found = parse_json(report)
        except ValueError:
            found = None
        try:
            return io.NodeOutput(pil_to_image(draw_report(found, image_index, shown)))
        except ValueError as error:
            raise ValueError(f"{CHART_NODE}: {error}") from None
