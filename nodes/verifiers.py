"""Nodes that judge images: the verifiers of a search, ensembles of them, and scores for any images."""

import json
import logging
import math
from typing import NamedTuple

import comfy.model_management
import torch
from comfy_api.latest import io

from ..fluxir_core.execution.micro_batches import MicroBatches
from ..fluxir_core.image.candidates import candidate_sheet
from ..fluxir_core.verify.aggregate import mean_z, rank_sum
from ..fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble
from .inputs import given_planes
from .runtime import answer, in_name_of, load_whole, pil_to_image

AGGREGATORS = {"by score": mean_z, "by rank": rank_sum}
Verifier = io.Custom("FLUXIR_VERIFIER")


COPIES = 32
"""Sizes of a float32 picture that its scoring takes at most; the default ensemble was seen to take 23."""
MOST_AT_ONCE, PIXELS_ON_CPU = 8, 512 * 512
"""Images scored together: on a CPU only small ones, so that cancelling waits for no more than the image at hand."""


class LoadedVerifier(NamedTuple):
    """A FLUXIR_VERIFIER: an Ensemble, and the ModelPatchers of the networks inside it."""

    ensemble: Ensemble
    patchers: tuple = ()

    def measure(self, images, reference=None):
        """Scores `pictures` (n, 3, H, W) in [0, 1], with `reference` (B, 3, H, W) tiled over them; {name: (n,)}.

        As many at once as the device's memory holds.
        """
        management, device = comfy.model_management, comfy.model_management.get_torch_device()
        needed = COPIES * images[0].nbytes
        management.free_memory(needed, device)  # before: it may take a verifier's own network away
        load_whole(self.patchers, needed)

        def score(group, rows):
            management.throw_exception_if_processing_interrupted()
            given = None if reference is None else reference[rows % len(reference)].to(device)
            return self.ensemble.measure(group.to(device), given)

        most = MOST_AT_ONCE
        if management.is_device_cpu(device):
            most = min(most, PIXELS_ON_CPU // images[0, 0].numel())
        at_once = max(1, min(most, int(management.get_free_memory(device) / needed)))
        return MicroBatches(1, at_once)(score, images, torch.arange(len(images)))


class NaturalImageVerifier(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRNaturalImageVerifier",
            display_name="Natural Image Verifier",
            category="FluxIR/search",
            description="Judges how natural an image looks, and how close it stays to the degraded input. Needs no download.",
            search_aliases=["judge", "niqe", "no reference quality", "image quality", "fluxir"],
            inputs=[],
            outputs=[
                Verifier.Output(
                    display_name="verifier", tooltip="For TTS Sampler (test-time search), Verifier Ensemble or Score Images."
                )
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(LoadedVerifier(DefaultEnsemble()))


class VerifierEnsemble(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRVerifierEnsemble",
            display_name="Verifier Ensemble",
            category="FluxIR/search",
            description="Lets several verifiers choose together.",
            search_aliases=["combine verifiers", "rank sum", "z-score", "judges", "fluxir"],
            inputs=[
                io.Autogrow.Input(
                    "verifiers",
                    template=io.Autogrow.TemplatePrefix(
                        Verifier.Input("verifier", tooltip="A verifier. Connect each one only once."),
                        "verifier",
                        min=1,
                        max=8,
                    ),
                ),
                io.Combo.Input(
                    "aggregation",
                    options=list(AGGREGATORS),
                    default="by score",
                    tooltip="How the scores of a round become one value. by score: it counts how much better a candidate is than "
                    "the others. by rank: it counts only that it is better, as in the paper ResFlow-Tuner.",
                ),
            ],
            outputs=[Verifier.Output(display_name="verifier", tooltip="For TTS Sampler (test-time search) or Score Images.")],
        )

    @classmethod
    def execute(cls, verifiers, aggregation) -> io.NodeOutput:
        members = [verifier for verifier in verifiers.values() if verifier is not None]
        try:
            ensemble = Ensemble([member.ensemble for member in members], AGGREGATORS[aggregation])
        except ValueError as error:
            raise in_name_of("Verifier Ensemble", error) from None
        return io.NodeOutput(LoadedVerifier(ensemble, tuple(p for member in members for p in member.patchers)))


class ScoreImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRScoreImages",
            display_name="Score Images",
            category="FluxIR/search",
            description="Scores the images of a batch against each other and gives the best.",
            search_aliases=["compare quality", "rank images", "choose best", "contact sheet", "image quality", "fluxir"],
            inputs=[
                io.Image.Input("images", tooltip="The images to compare, as one batch."),
                Verifier.Input("verifier", tooltip="What judges them."),
                io.Image.Input("degraded", optional=True, tooltip="The degraded input they should stay true to. Any size."),
            ],
            outputs=[
                io.Image.Output(display_name="best", tooltip="The image with the highest value."),
                io.Int.Output(display_name="index", tooltip="Its place in the batch, counted from 0."),
                io.String.Output(display_name="scores", tooltip="The value of each image and every verifier's scores, as JSON."),
                io.Image.Output(display_name="sheet", tooltip="All images with their ranks and scores; the best is framed."),
            ],
        )

    @classmethod
    def execute(cls, images, verifier, degraded=None) -> io.NodeOutput:
        planes = given_planes("Score Images", "images", images, finite=False)
        reference = None if degraded is None else given_planes("Score Images", "degraded", degraded)
        if reference is not None and len(reference) != 1:
            raise ValueError(f"Score Images: {len(reference)} degraded images; give the one that all images restore.")
        try:
            scores = verifier.measure(planes, reference)
        except ValueError as error:
            raise in_name_of("Score Images", error) from None
        scores = {name: values.float().cpu() for name, values in scores.items()}
        values = verifier.ensemble.combine(scores)
        best = int(values.nan_to_num(nan=-torch.inf).argmax())
        refused, said = not torch.isfinite(values).any(), f"Image {best + 1} of {len(planes)} is the best."
        if refused:
            said = f"the verifier refuses all of {len(planes)} images ({_refusals(scores)}): none is the best, the first is given"
            logging.warning("Score Images: %s.", said)
        columns = {"values": values, **scores}
        report = {name: [v if math.isfinite(v) else None for v in column.tolist()] for name, column in columns.items()}
        report = {"values": report.pop("values"), "scores": report, **({"refused": said} if refused else {})}
        sheet = candidate_sheet(planes.cpu(), report["values"], report["scores"], None if refused else best)
        return io.NodeOutput(images[best : best + 1], best, json.dumps(report), pil_to_image(sheet), ui=answer(said))


def _refusals(scores):
    """The names of the `scores` {name: (n,)} that refuse any image."""
    refusing = [name for name, own in scores.items() if ((own < 0) if name.startswith("guard_") else ~own.isfinite()).any()]
    return ", ".join(refusing) or "by all scores together"
