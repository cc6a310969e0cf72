"""Degrade Image: in the real ComfyUI of this process, and on servers of both releases."""

from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.tasks import TASKS
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image

PAGE = Path(__file__).resolve().parents[2] / "web" / "docs" / "FluxIRDegradeImage.md"


@pytest.fixture(scope="module")
def node(comfy):
    from comfyui_fluxir.nodes.degrade import DegradeImage

    return DegradeImage


@pytest.fixture(scope="module")
def batch():
    """Three crops of a photo as an IMAGE (3, 72, 64, 3)."""
    photo = torch.from_numpy(load_photo("astronaut").copy()).float() / 255
    return torch.stack([photo[top : top + 72, 180:244] for top in (50, 100, 150)])


def degrade(node, image, degradation, strength, seed):
    with torch.inference_mode():
        return node.execute(image, degradation, strength, seed).result[0]


@pytest.fixture
def widgets(node):
    return {part.id: part for part in node.define_schema().inputs}


def test_the_combo_offers_every_degradation_and_the_page_explains_each_with_its_source(widgets):
    assert widgets["degradation"].options == list(TASKS) and widgets["degradation"].default in TASKS
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    explained = {row[1].strip(" `"): row[3] for row in rows if len(row) == 5}
    assert set(explained) == set(TASKS) and all(any(c.isdigit() for c in source) for source in explained.values())


@pytest.mark.parametrize("name", TASKS)
def test_strength_zero_is_the_image_bit_for_bit_and_more_is_not(node, batch, name):
    assert torch.equal(degrade(node, batch, name, 0.0, 7), batch)
    degraded = degrade(node, batch, name, 1.0, 7)
    assert degraded.shape == batch.shape and degraded.dtype == batch.dtype and degraded.device == batch.device
    assert 0 <= degraded.min() and degraded.max() <= 1 and (degraded - batch).abs().mean() > 0.005


@pytest.mark.parametrize("name", TASKS)
def test_image_i_of_a_batch_gets_the_seed_plus_i(node, batch, name):
    together = degrade(node, batch, name, 0.6, 7)
    alone = [degrade(node, batch[i : i + 1], name, 0.6, 7 + i) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together.movedim(-1, 1), TASKS[name](batch.movedim(-1, 1), 0.6, [7, 8, 9]))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", TASKS)
def test_the_number_of_channels_stays(node, batch, name, channels):
    image = torch.cat([batch, batch[..., :1].flip(1)], -1)[:1, ..., :channels]
    degraded = degrade(node, image, name, 0.6, 7)
    assert degraded.shape == image.shape and torch.equal(degraded[..., 3:], image[..., 3:])
    assert torch.equal(degrade(node, image, name, 0.0, 7), image)
    if channels == 1:
        colored = TASKS[name](image.movedim(-1, 1).expand(-1, 3, -1, -1), 0.6, [7])
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        torch.testing.assert_close(degraded[..., 0], (colored * weights).sum(1))


def test_every_seed_the_widget_allows_works(node, batch, widgets):
    for seed in (widgets["seed"].min, widgets["seed"].max):
        assert degrade(node, batch, "sensor noise", 0.5, seed).shape == batch.shape
    assert widgets["seed"].control_after_generate


def test_alpha_is_passed_on(node, batch):
    alpha = torch.rand(3, 72, 64, 1)
    degraded = degrade(node, torch.cat([batch, alpha], -1), "snow", 0.5, 1)
    assert torch.equal(degraded, torch.cat([degrade(node, batch, "snow", 0.5, 1), alpha], -1))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (61, 47)])
def test_tiny_and_odd_images_and_half_precision_work(node, size):
    for name in TASKS:
        image = torch.rand(2, *size, 3).half()
        degraded = degrade(node, image, name, 0.8, 1)
        assert degraded.shape == image.shape and degraded.dtype == image.dtype and degraded.isfinite().all()


def test_nan_is_refused_with_the_nodes_name_and_the_images_number(node, batch):
    broken = batch.clone()
    broken[1, 2, 3, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^Degrade Image: image 2 holds NaN or infinity; give one without\.$"):
        degrade(node, broken, "snow", 0.5, 1)


def test_a_batch_shows_its_progress_and_can_be_interrupted(node, batch, monkeypatch):
    import comfy.model_management as management
    import comfy.utils

    steps = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: steps.append((value, total)))
    degrade(node, batch, "low light", 0.5, 1)
    assert steps[0] == (1, 3) and steps[-1] == (3, 3)  # newer releases leave out what follows too fast
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        degrade(node, batch, "low light", 0.5, 1)


def test_a_graph_degrades_a_file_and_leaves_it_alone_at_strength_zero(server, batch):
    pixels = (batch[0].numpy() * 255).round().astype(np.uint8)
    (server.base / "input").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(server.base / "input" / "good.png")

    def run(strength):
        settings = {"degradation": "Real-ESRGAN", "strength": strength, "seed": 3}
        return np.asarray(
            Image.open(
                server.run(
                    {
                        "1": {"class_type": "LoadImage", "inputs": {"image": "good.png"}},
                        "2": {"class_type": "FluxIRDegradeImage", "inputs": {"image": ["1", 0], **settings}},
                        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
                    }
                )["3"][0]
            )
        )

    assert (run(0.0) == pixels).all()
    expected = TASKS["Real-ESRGAN"](torch.from_numpy(pixels.copy()).movedim(-1, 0)[None].float() / 255, 0.5, [3])[0]
    apart = np.abs(run(0.5) - expected.movedim(0, -1).numpy() * 255)
    assert (apart <= 1.01).mean() > 0.999
