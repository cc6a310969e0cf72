"""Evaluate Restoration in the real ComfyUI of this process, and in a graph on servers of both releases."""

import json

import numpy as np
import pytest
import torch
from comfyui_fluxir.demo.comfyui import ComfyUIError
from comfyui_fluxir.fluxir_core.verify import pyiqa_metric
from comfyui_fluxir.fluxir_core.verify.evaluation import Evaluation, markdown
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import evaluate

    return evaluate


@pytest.fixture(scope="module")
def photo():
    """A photo as IMAGE, (1, 128, 128, 3)."""
    return torch.from_numpy(load_photo("coffee")[100:356:2, 150:406:2].copy())[None].float() / 255


def run(nodes, restored, **given):
    with torch.inference_mode():
        table, values = nodes.EvaluateRestoration.execute(restored, **given).result
    return table, json.loads(values)


def planes(image):
    return image[0].movedim(-1, 0)


def test_the_node_is_the_core_function_on_images(nodes, photo):
    restored, degraded = photo * 0.9, photo[:, ::2, ::2]
    table, report = run(nodes, restored, degraded=degraded, original=photo)
    evaluation = Evaluation(())
    expected = evaluation(planes(restored), planes(degraded), planes(photo))
    assert report == {"values": [expected], "skipped": {}} and table == markdown([expected], evaluation)


def test_an_image_alone_is_measured_without_partners_and_metrics(nodes, photo):
    _, report = run(nodes, torch.cat([photo, photo[..., :1]], -1))  # alpha is left out
    assert report["values"] == [Evaluation(())(planes(photo))]


def test_batches_take_one_partner_for_all_or_one_each(nodes, photo):
    batch = torch.cat([photo, photo.flip(1)])
    table, all_one = run(nodes, batch, original=photo)
    _, each = run(nodes, batch, original=batch)
    assert all_one["values"][0] == each["values"][0] and each["values"][1]["psnr"] > all_one["values"][1]["psnr"]
    assert "| metric | mean | lowest | highest | images |" in table


def test_metrics_are_read_with_commas_moved_by_comfyui_and_skipped_by_name(nodes, photo, monkeypatch):
    class Brightness(torch.nn.Module):
        metric_mode, lower_better = "NR", False

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)

        def forward(self, target):
            return target.mean()[None] * (self.weight if target.mean() < 0.99 else torch.nan)

    def create(name):
        if name == "maniqa":
            raise pyiqa_metric.VerifierFileError("PyIQAMetric: maniqa's weights are not on disk.")
        return Brightness()

    loaded, management = [], nodes.comfy.model_management
    load = management.load_models_gpu
    monkeypatch.setattr(pyiqa_metric, "create", create)
    monkeypatch.setattr(management, "load_models_gpu", lambda models: loaded.extend(models) or load(models))
    table, report = run(nodes, torch.cat([photo, torch.ones_like(photo)]), metrics=" musiq ,maniqa,, musiq")
    assert report["skipped"] == {"maniqa": "maniqa's weights are not on disk"} and "- maniqa skipped: " in table
    assert [row["musiq"] for row in report["values"]] == [pytest.approx(photo.mean().item()), None]
    assert len(loaded) == 1


def test_what_cannot_be_measured_is_refused_in_one_sentence(nodes, photo):
    sentence = r"^Evaluate Restoration: 2 degraded images for 1 restored ones; give one for each, or one for all\.$"
    with pytest.raises(ValueError, match=sentence):
        run(nodes, photo, degraded=photo.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"^Evaluate Restoration: the original has 64 x 64 .*; bring them to one size\.$"):
        run(nodes, photo, original=photo[:, ::2, ::2])
    with pytest.raises(ValueError, match="^Evaluate Restoration: psnr is measured in any case; "):
        run(nodes, photo, metrics="psnr")


def test_it_can_be_interrupted(nodes, photo):
    nodes.comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(nodes.comfy.model_management.InterruptProcessingException):
        run(nodes, photo)


def test_the_default_asks_for_no_weights_and_it_ends_a_graph(nodes):
    schema = nodes.EvaluateRestoration.define_schema()
    inputs = {part.id: part for part in schema.inputs}
    assert inputs["metrics"].default == "" and schema.is_output_node
    assert {name for name, part in inputs.items() if part.optional} == {"degraded", "original"}


def test_in_a_graph_it_needs_no_node_after_it(server, photo):
    (server.base / "input").mkdir(exist_ok=True)
    Image.fromarray((photo[0].numpy() * 255).round().astype(np.uint8)).save(server.base / "input" / "restored.png")
    evaluate = {"restored": ["1", 0], "degraded": ["1", 0], "metrics": ""}
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "restored.png"}},
        "2": {"class_type": "FluxIREvaluateRestoration", "inputs": evaluate},
    }
    server.run(graph)
    evaluate["metrics"] = "niqe"
    with pytest.raises(ComfyUIError, match="Evaluate Restoration: niqe is measured in any case"):
        server.run(graph)
