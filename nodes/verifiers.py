"""Nodes that judge images: the verifiers of a search, ensembles of them, and scores for any images."""

import json
import logging
import math
from typing import NamedTuple

import comfy.model_management
import torch
from comfy_api.latest import io
from torch.nn import functional as F

from ..fluxir_core.execution.micro_batches import MicroBatches
from ..fluxir_core.image.candidates import candidate_sheet
from ..fluxir_core.verify.aggregate import mean_z, rank_sum
from ..fluxir_core.verify.artist import verifiers_scores
from ..fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble
from .inputs import given_planes, plain_samples
from .runtime import answer, in_name_of, load_whole, pil_to_image

AGGREGATORS = {"by score": mean_z, "by rank": rank_sum}
SCORE_NODE = "Score Images"
Verifier = io.Custom("FLUXIR_VERIFIER")


COPIES = 32
"""Sizes of a float32 image that its scoring takes at most; the default ensemble was seen to take 23."""
MOST_AT_ONCE, PIXELS_ON_CPU = 8, 512 * 512
"""Images scored together: on a CPU only small ones, so that canceling waits for no more than the image at hand."""


class LoadedVerifier(NamedTuple):
    """A FLUXIR_VERIFIER: an Ensemble, and the ModelPatchers of the networks inside it."""

    ensemble: Ensemble
    patchers: tuple = ()

    def measure(self, images, reference=None):
        """Scores `images` (n, 3, H, W) in [0, 1], with `reference` (B, 3, H, W) tiled over them; {name: (n,)}.

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
            display_name=SCORE_NODE,
            category="FluxIR/search",
            description="Scores images against each other and keeps the best.",
            search_aliases=[
                *("compare quality", "rank images", "choose best", "keep best", "top k"),
                *("sort images", "contact sheet", "image quality", "fluxir"),
            ],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The images to compare, as one batch or a list."),
                Verifier.Input("verifier", tooltip="What judges them."),
                io.Image.Input("degraded", optional=True, tooltip="The degraded input they should stay true to. Any size."),
                io.Int.Input("keep", default=1, min=1, max=4096, tooltip="How many of the best images to give."),
                io.Latent.Input(
                    "latents",
                    optional=True,
                    tooltip="What the images were decoded from, one for each image; those of the best images are given.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="best",
                    is_output_list=True,
                    tooltip="The best images, the best one first. One batch if all have one size.",
                ),
                io.Int.Output(display_name="index", tooltip="The place of the best one in the batch, counted from 0."),
                io.String.Output(
                    display_name="scores", tooltip="The value of each image, every verifier's scores, and the order, as JSON."
                ),
                io.Image.Output(display_name="sheet", tooltip="All images with their ranks and scores; the best is framed."),
                io.Latent.Output(display_name="latents", is_output_list=True, tooltip="The latents of the best images."),
            ],
        )

    @classmethod
    def execute(cls, images, verifier, keep, degraded=None, latents=None) -> io.NodeOutput:
        if len(verifier) > 1 or len(keep) > 1:
            raise ValueError(f"{SCORE_NODE}: {len(verifier)} verifiers and {len(keep)} numbers to keep; connect one of each.")
        [verifier], [keep] = verifier, keep
        rows = [row for batch in images for row in batch.split(1)]
        planes = [given_planes(SCORE_NODE, "images", batch, finite=False) for batch in images]
        given = _latent_rows(latents, len(rows))
        references = [given_planes(SCORE_NODE, "degraded", batch) for batch in degraded or ()]
        if sum(map(len, references)) > 1:
            raise ValueError(f"{SCORE_NODE}: {sum(map(len, references))} degraded images; give the one that all images restore.")
        try:
            found = [verifier.measure(batch, *references) for batch in planes]
            measured = _scores_of_all(found, planes)
            values, scores = verifier.ensemble.combine(measured), verifiers_scores(measured)
        except ValueError as error:
            raise in_name_of(SCORE_NODE, error) from None
        finally:
            verifier.ensemble.forget()
        order = [
            i for i in values.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True).tolist() if values[i].isfinite()
        ]
        refused = not order
        if refused:
            said = f"the verifier refuses all of {len(rows)} images ({_refusals(scores)}): none is the best, the first is given"
            logging.warning("%s: %s.", SCORE_NODE, said)
            order = [0]
        else:
            said = f"Image {order[0] + 1} of {len(rows)} is the best."
        columns = {"values": values, **scores}
        report = {name: [v if math.isfinite(v) else None for v in column.tolist()] for name, column in columns.items()}
        report = {"values": report.pop("values"), "scores": report, "order": order, **({"refused": said} if refused else {})}
        sheet = candidate_sheet(_padded(planes), report["values"], report["scores"], None if refused else order[0])
        kept = order[:keep]
        best = _joined([rows[i] for i in kept])
        chosen = [{"samples": samples} for samples in _joined([given[i] for i in kept])] if given else []
        return io.NodeOutput(best, order[0], json.dumps(report), pil_to_image(sheet), chosen, ui=answer(said))


def _scores_of_all(found, planes):
    """{verifier: (images,)} of the scores `found` of each batch of `planes`; a verifier that failed on a batch has NaN there."""
    unknown = [torch.full((len(batch),), torch.nan) for batch in planes]
    names = dict.fromkeys(name for own in found for name in own)
    return {name: torch.cat([own.get(name, none).float().cpu() for own, none in zip(found, unknown)]) for name in names}


def _latent_rows(latents, count):
    """The samples of LATENTs, one row for each of `count` images; none where there are no LATENTs."""
    rows = [row for latent in latents or () for row in plain_samples(SCORE_NODE, "latents", latent["samples"]).split(1)]
    if rows and len(rows) != count:
        raise ValueError(f"{SCORE_NODE}: {len(rows)} latents for {count} images; give one for each, or none.")
    return rows


def _joined(rows):
    """`rows` (1, ...) as a list of one batch, or as they are where their sizes differ."""
    return [torch.cat(rows)] if len({row.shape[1:] for row in rows}) == 1 else rows


def _padded(planes):
    """Batches of `planes` (B, 3, H, W) as one, smaller ones with black at the right and below; on the CPU."""
    height, width = (max(batch.shape[axis] for batch in planes) for axis in (2, 3))
    return torch.cat([F.pad(batch.cpu(), (0, width - batch.shape[3], 0, height - batch.shape[2])) for batch in planes])


def _refusals(scores):
    """The names of the `scores` {name: (n,)} that refuse any image."""
    refusing = [name for name, own in scores.items() if ((own < 0) if name.startswith("guard_") else ~own.isfinite()).any()]
    return ", ".join(refusing) or "by all scores together"
