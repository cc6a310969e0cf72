"""Cancel in every node that works image by image: it ends at the image at hand."""

import pytest
import torch

IMAGES, DONE = 4, 2
"""How many images there are, and how many are done when Cancel is pressed."""


def batch(seed):
    return torch.rand(IMAGES, 64, 64, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def calls(comfy, vae, tmp_path_factory):
    """{name of a node: a call of it with several images}"""
    import folder_paths
    from comfyui_fluxir.nodes import align, caption, color, compare, degrade, detail, evaluate, fidelity, fluxgen, photo
    from comfyui_fluxir.nodes.verifiers import NaturalImageVerifier, ScoreImages

    folder_paths.set_output_directory(str(tmp_path_factory.mktemp("canceled")))
    verifier, one, other = NaturalImageVerifier.execute().result[0], batch(1), batch(2)
    large, samples = torch.rand(1, 1032, 1032, 3), {"samples": torch.rand(1, 16, 130, 130)}
    return {
        "Align to Input": lambda: align.AlignToInput.execute(one, other, True),
        "Before and After": lambda: compare.BeforeAndAfter.execute(one, other, "split"),
        "Decode Photo, of tiles": lambda: photo.DecodePhoto.execute(samples, vae, large),
        "Degradation Check": lambda: caption.DegradationCheck.execute(one, other),
        "Degrade Image": lambda: degrade.DegradeImage.execute(one, "motion blur", 0.5, 0),
        "Encode Photo, in tiles": lambda: photo.EncodePhoto.execute(large, vae),
        "Evaluate Restoration": lambda: evaluate.EvaluateRestoration.execute(one, degraded=other),
        "Give Back Detail": lambda: detail.GiveBackDetail.execute(one, other, vae, 1.0),
        "Invented Detail": lambda: fidelity.InventedDetail.execute(one, other),
        "Match Color": lambda: color.MatchColor.execute(one, other, "wavelet", 1.0),
        "Save Image Pairs": lambda: fluxgen.SaveImagePairs.execute(one, other, "pairs"),
        "Score Images": lambda: ScoreImages.execute([torch.rand(IMAGES, 600, 600, 3)], [verifier], [1]),
        "Select Images": lambda: fluxgen.SelectImages.execute(one, verifier, 1.0),
    }


NODES = (
    "Align to Input",
    "Before and After",
    "Decode Photo, of tiles",
    "Degradation Check",
    "Degrade Image",
    "Encode Photo, in tiles",
    "Evaluate Restoration",
    "Give Back Detail",
    "Invented Detail",
    "Match Color",
    "Save Image Pairs",
    "Score Images",
    "Select Images",
)


@pytest.mark.parametrize("name", NODES)
def test_a_node_looks_at_cancel_before_every_image_and_stops(calls, monkeypatch, name):
    import comfy.model_management as management

    looked, look = [], management.throw_exception_if_processing_interrupted

    def counted():
        looked.append(1)
        if len(looked) == DONE + 1:
            management.interrupt_current_processing(True)
        look()

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", counted)
    with pytest.raises(management.InterruptProcessingException), torch.inference_mode():
        calls[name]()
    assert len(looked) == DONE + 1 and not management.processing_interrupted()
