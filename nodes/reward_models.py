"""Nodes that load verifiers with weights of their own, from files the artist placed."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..fluxir_core.verify.aesthetic import AestheticPredictor
from ..fluxir_core.verify.clip_score import CLIPScore
from ..fluxir_core.verify.ensemble import Ensemble
from ..fluxir_core.verify.image_reward import ImageReward
from ..fluxir_core.verify.named import CLIP_FOLDER, HEAD_FILE, REWARD_FOLDER
from ..fluxir_core.verify.pyiqa_metric import PyIQAMetric
from .folders import VERIFIERS
from .runtime import in_name_of, make_patcher
from .verifiers import LoadedVerifier, Verifier

CATEGORY = "FluxIR/search/verifiers"


def _entries(public_name, folders=True):
    """The public name and whatever else stands in models/fluxir_verifiers, folders or files."""
    found = {
        entry.name
        for root in folder_paths.get_folder_paths(VERIFIERS)
        if Path(root).is_dir()
        for entry in Path(root).iterdir()
        if entry.is_dir() == folders and (folders or entry.suffix in (".pth", ".safetensors"))
    }
    return [public_name, *sorted(found - {public_name})]


def _place(name):
    """Where `name` is, or where it belongs when it is not there yet."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(VERIFIERS)]
    return next((root / name for root in roots if (root / name).exists()), roots[0] / name)


def _managed(node, make):
    """A LoadedVerifier around what `make()` builds, its network moved by ComfyUI; errors name `node`."""
    try:
        verifier = make()
    except (ValueError, ImportError) as error:
        raise in_name_of(node, error) from None
    return io.NodeOutput(LoadedVerifier(Ensemble([verifier], name=f"{verifier.name}_verifier"), (make_patcher(verifier.module),)))


def _schema(node_id, display_name, description, inputs, aliases):
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category=CATEGORY,
        description=description,
        search_aliases=["verifier", "judge", "reward model", "fluxir", *aliases],
        inputs=inputs,
        outputs=[
            Verifier.Output(
                display_name="verifier", tooltip="For TTS Sampler (test-time search), Verifier Ensemble or Score Images."
            )
        ],
    )


def _prompt():
    return io.String.Input("prompt", multiline=True, default="a sharp, detailed photo", tooltip="What the image should show.")


class CLIPScoreVerifier(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "FluxIRCLIPScoreVerifier",
            "CLIP-Score Verifier",
            "Judges how well an image matches a text.",
            [
                io.Combo.Input(
                    "model",
                    options=_entries(CLIP_FOLDER),
                    tooltip="A CLIP folder in models/fluxir_verifiers: config.json, "
                    "model.safetensors and the tokenizer of openai/clip-vit-large-patch14.",
                ),
                _prompt(),
            ],
            ["clip score", "text alignment"],
        )

    @classmethod
    def execute(cls, model, prompt) -> io.NodeOutput:
        return _managed("CLIP-Score Verifier", lambda: CLIPScore(_place(model), prompt))


class AestheticVerifier(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "FluxIRAestheticVerifier",
            "Aesthetic Verifier",
            "Predicts how people would rate an image, about 1 to 10.",
            [
                io.Combo.Input(
                    "model",
                    options=_entries(CLIP_FOLDER),
                    tooltip="A CLIP folder in models/fluxir_verifiers: config.json and "
                    "model.safetensors of openai/clip-vit-large-patch14.",
                ),
                io.Combo.Input(
                    "head",
                    options=_entries(HEAD_FILE, folders=False),
                    tooltip="The rating head in models/fluxir_verifiers: LAION's sac+logos+ava1-l14-linearMSE.pth.",
                ),
            ],
            ["aesthetic score", "laion"],
        )

    @classmethod
    def execute(cls, model, head) -> io.NodeOutput:
        return _managed("Aesthetic Verifier", lambda: AestheticPredictor(_place(model), _place(head)))


class ImageRewardVerifier(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "FluxIRImageRewardVerifier",
            "ImageReward Verifier",
            "Predicts which image people would prefer for a text.",
            [
                io.Combo.Input(
                    "model",
                    options=_entries(REWARD_FOLDER),
                    tooltip="A folder in models/fluxir_verifiers with ImageReward.pt "
                    "(THUDM/ImageReward) and bert-base-uncased's vocab.txt.",
                ),
                _prompt(),
            ],
            ["image reward", "human preference"],
        )

    @classmethod
    def execute(cls, model, prompt) -> io.NodeOutput:
        return _managed("ImageReward Verifier", lambda: ImageReward(_place(model), prompt))


class PyIQAVerifier(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return _schema(
            "FluxIRPyIQAVerifier",
            "PyIQA Verifier",
            "Any quality metric of the library pyiqa, if you have installed it.",
            [
                io.String.Input(
                    "metric",
                    default="musiq",
                    tooltip="The metric's name, such as musiq, maniqa, clipiqa, topiq_nr or piqe. Metrics such as lpips compare "
                    "with the degraded image. Needs `pip install pyiqa` (noncommercial).",
                ),
            ],
            ["iqa", "musiq", "maniqa", "image quality", "quality metric"],
        )

    @classmethod
    def execute(cls, metric) -> io.NodeOutput:
        return _managed("PyIQA Verifier", lambda: PyIQAMetric(metric.strip()))
