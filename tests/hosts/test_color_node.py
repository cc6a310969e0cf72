"""Color Match in the real ComfyUI of this process, and in a graph on servers of both releases."""

import numpy as np
import pytest
import torch
from comfyui_fluxir.demo.comfyui import ComfyUIError
from comfyui_fluxir.fluxir_core.image.color import METHODS, match_color
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import color

    return color


@pytest.fixture(scope="module")
def photo():
    """A photo as IMAGE, (1, 128, 128, 3)."""
    return torch.from_numpy(load_photo("coffee")[100:356:2, 150:406:2].copy())[None].float() / 255


def drift(image):
    return (image * torch.tensor([0.9, 1.0, 1.05]) + torch.tensor([0.06, -0.02, 0.0])).clamp(0, 1)


def run(nodes, *given, method="wavelet", strength=1.0):
    with torch.inference_mode():
        return nodes.MatchColor.execute(*given, method, strength).result[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_node_is_the_core_function_on_images(nodes, photo, method):
    matched = run(nodes, drift(photo), photo, method=method, strength=0.7)
    expected = match_color(drift(photo).movedim(-1, 1), photo.movedim(-1, 1), method, 0.7).movedim(1, -1)
    assert torch.equal(matched, expected) and matched.is_contiguous()
    assert (matched - photo).abs().mean() < 0.8 * (drift(photo) - photo).abs().mean()


def test_every_choice_is_a_method_and_the_default_undoes_a_cast_best(nodes, photo):
    inputs = {part.id: part for part in nodes.MatchColor.define_schema().inputs}
    assert inputs["method"].options == list(METHODS) and inputs["strength"].default == 1.0
    left = {method: (run(nodes, drift(photo), photo, method=method) - photo).square().mean() for method in METHODS}
    assert min(left, key=left.get) == inputs["method"].default


def test_alpha_is_carried_through_and_strength_0_changes_nothing(nodes, photo):
    alpha = torch.rand(1, 128, 128, 1)
    image = torch.cat([drift(photo), alpha], -1)
    for reference in (photo, torch.cat([photo, alpha.flip(1)], -1)):
        matched = run(nodes, image, reference)
        assert matched.shape == image.shape and torch.equal(matched[..., 3:], alpha)
        assert torch.equal(run(nodes, image, reference, strength=0.0), image)


@pytest.mark.parametrize("method", METHODS)
def test_one_pixel_takes_the_references_color_and_keeps_its_alpha(nodes, photo, method):
    pixel, color = torch.tensor([0.2, 0.5, 0.8, 0.3]), torch.tensor([0.6, 0.3, 0.1])
    matched = run(nodes, pixel[None, None, None], color[None, None, None].expand(-1, 5, 7, -1), method=method)
    assert matched.shape == (1, 1, 1, 4) and matched[..., 3] == pixel[3]
    torch.testing.assert_close(matched[0, 0, 0, :3], color, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_steps_far_finer_than_eight_bits_come_through(nodes, method):
    ramp = torch.linspace(0.4, 0.401, 256)[:, None].expand(1, 16, 256, 3).contiguous()
    matched = run(nodes, ramp, ramp + 0.1, method=method)
    assert (matched.diff(dim=2) > 0).float().mean() > 0.95 and (matched - ramp - 0.1).abs().max() < 1e-3


def test_the_result_is_float32_on_the_cpu_for_any_float_type(nodes, photo):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        matched = run(nodes, drift(photo).to(dtype), photo.to(dtype))
        assert matched.dtype == torch.float32 and matched.device.type == "cpu"


def test_one_reference_serves_a_batch_and_a_batch_is_matched_one_by_one(nodes, photo):
    batch = torch.cat([drift(photo), drift(photo.flip(1)), photo])
    assert torch.equal(run(nodes, batch, photo), torch.cat([run(nodes, p[None], photo) for p in batch]))
    references = torch.cat([photo, photo.flip(1), drift(photo)])
    each = [run(nodes, p[None], r[None]) for p, r in zip(batch, references)]
    assert torch.equal(run(nodes, batch, references), torch.cat(each))


def test_it_computes_on_comfyuis_device_after_asking_for_memory_there(nodes, photo, monkeypatch):
    device, seen, freed = torch.device("meta"), [], []

    def recorded(image, reference, *_):
        seen.append((image.device.type, reference.device.type))
        return torch.zeros(image.shape)

    monkeypatch.setattr(nodes.comfy.model_management, "get_torch_device", lambda: device)
    monkeypatch.setattr(nodes.comfy.model_management, "free_memory", lambda *given: freed.append(given))
    monkeypatch.setattr(nodes, "match_color", recorded)
    run(nodes, photo.repeat(2, 1, 1, 1), photo)
    assert seen == [("meta", "meta")] * 2 and freed == [(nodes.COPIES * photo.nbytes, device)]


def test_it_can_be_interrupted(nodes, photo):
    nodes.comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(nodes.comfy.model_management.InterruptProcessingException):
        run(nodes, photo, photo)


def test_what_cannot_be_matched_is_refused_in_one_sentence(nodes, photo):
    sentence = r"^Color Match: 2 references for a batch of 1; give one for each image, or one for all\.$"
    with pytest.raises(ValueError, match=sentence):
        run(nodes, photo, photo.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"^Color Match: the image has 1 channels; give 3, or 4 with alpha\.$"):
        run(nodes, photo[..., :1], photo)
    sentence = r"^Color Match: reference holds NaN or infinity in image 1; give images without\.$"
    with pytest.raises(ValueError, match=sentence):
        run(nodes, photo, photo * torch.nan)


def test_in_a_graph(server, photo):
    (server.base / "input").mkdir(exist_ok=True)
    for name, image in {"right": photo, "drifted": drift(photo)}.items():
        Image.fromarray((image[0].numpy() * 255).round().astype(np.uint8)).save(server.base / "input" / f"{name}.png")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "drifted.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "right.png"}},
        "3": {"class_type": "FluxIRMatchColor", "inputs": {"image": ["1", 0], "reference": ["2", 0], "method": "wavelet"}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    graph["3"]["inputs"]["strength"] = 1.0
    matched = np.asarray(Image.open(server.run(graph)["4"][0])) / 255
    assert np.abs(matched - photo[0].numpy()).mean() < 0.005
    graph["3"]["inputs"]["strength"] = 1.5
    with pytest.raises(ComfyUIError, match="strength"):
        server.run(graph)
