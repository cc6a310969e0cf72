"""Degradation Check and Caption Image: in the real ComfyUI of this process, and on servers of both releases."""

import logging
import weakref

import numpy as np
import pytest
import torch
from comfyui_fluxir.demo.comfyui import ComfyUIError
from comfyui_fluxir.fluxir_core import caption as core
from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_noise
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image

from ..unit.public_captioner import write_qwen_folder

FOLDER = "Qwen2.5-VL-7B-Instruct"


@pytest.fixture(scope="module")
def nodes(comfy, tmp_path_factory):
    """nodes/caption.py, with a small random captioner under the public name in models/fluxir_captioners."""
    import folder_paths
    from comfyui_fluxir.nodes import caption
    from comfyui_fluxir.nodes.folders import CAPTIONERS, register_model_folders

    register_model_folders()
    root = tmp_path_factory.mktemp("captioners")
    for name in (FOLDER, "another"):
        (root / name).mkdir()
    write_qwen_folder(root / FOLDER)
    folder_paths.add_model_folder_path(CAPTIONERS, str(root), is_default=True)
    return caption


@pytest.fixture(autouse=True)
def nothing_kept():
    core._captions.clear()


def photo(name="astronaut", side=160):
    """A photo's middle as (1, side, side, 3), and the same with noise: what a remover gives, and what it is given."""
    pixels = load_photo(name)
    top, left = ((extent - side) // 2 for extent in pixels.shape[:2])
    clean = torch.from_numpy(pixels[top : top + side, left : left + side].copy()).permute(2, 0, 1).float() / 255
    noisy = gaussian_noise(clean, 25, torch.Generator().manual_seed(0))
    return clean.permute(1, 2, 0)[None], noisy.permute(1, 2, 0)[None]


def check(nodes, degraded, cleaned, caption=None):
    with torch.inference_mode():
        return nodes.DegradationCheck.execute(degraded, cleaned, caption).result


# Degradation Check


def test_a_good_image_goes_on_with_its_caption(nodes, caplog):
    clean, noisy = photo()
    cleaned, caption, usable, report = check(nodes, noisy, clean, "an astronaut")
    assert cleaned is clean and caption == "an astronaut" and usable is True
    assert report.startswith("image 1: usable (agreement 1.00, contrast ")
    assert check(nodes, noisy, clean)[1] == ""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_bad_one_is_replaced_by_the_degraded_one_with_a_warning(nodes, caplog):
    clean, noisy = photo()
    with torch.inference_mode():
        output = nodes.DegradationCheck.execute(noisy, 1 - clean, "a negative")
    cleaned, caption, usable, report = output.result
    assert torch.equal(cleaned, noisy) and caption == "" and usable is False
    assert report.startswith("image 1: not usable, because its large shapes agree with the degraded image's by -")
    assert output.ui == {"text": [report]}
    assert f"Degradation Check: {report.strip()}. There is no caption." in caplog.text


def test_the_replacement_has_the_cleaned_images_size(nodes):
    clean, noisy = photo()
    large = clean.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert check(nodes, noisy, large)[2] is True
    cleaned, _, usable, _ = check(nodes, noisy, large.flip(3))
    assert usable is False and cleaned.shape == large.shape
    smaller = torch.nn.functional.interpolate(cleaned.movedim(-1, 1), (160, 160), mode="area").movedim(1, -1)
    assert (smaller - noisy).abs().mean() < 0.05


def test_a_batch_is_usable_if_all_of_it_is_and_the_report_says_which_is_not(nodes):
    both = [torch.cat(parts) for parts in zip(photo("astronaut"), photo("coffee"))]
    assert check(nodes, both[1], both[0], "two pictures")[1:3] == ("two pictures", True)
    ruined = both[0].clone()
    ruined[1] = 0.5
    cleaned, caption, usable, report = check(nodes, both[1], ruined, "two pictures")
    assert (caption, usable) == ("", False)
    assert torch.equal(cleaned, torch.stack([both[0][0], both[1][1]]))
    first, second = report.splitlines()
    assert first.startswith("image 1: usable (") and second.startswith("image 2: not usable, because ")
    with pytest.raises(ValueError, match="^Degradation Check: 1 cleaned images for 2 degraded ones; give one for"):
        check(nodes, both[1], both[0][:1])


def test_a_check_can_be_interrupted_after_each_image(nodes, monkeypatch):
    clean, noisy = photo()
    checked = []

    def check_one(*images):
        checked.append(len(images[0]))
        nodes.comfy.model_management.interrupt_current_processing(True)

    monkeypatch.setattr(nodes, "removal_check", lambda *images: check_one(*images) or [])
    with pytest.raises(nodes.comfy.model_management.InterruptProcessingException):
        check(nodes, noisy.repeat(3, 1, 1, 1), clean.repeat(3, 1, 1, 1))
    assert checked == [1]


def test_nan_is_replaced(nodes):
    clean, noisy = photo()
    broken = clean.clone()
    broken[0, 3, 3, 0] = torch.nan
    cleaned, _, usable, report = check(nodes, noisy, broken)
    assert torch.equal(cleaned, noisy) and not usable
    assert report == "image 1: not usable, because it holds NaN or infinity"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_good_image_stays_where_the_degraded_one_holds_nan(nodes, channels):
    clean, noisy = (torch.cat([images, torch.rand_like(images[..., :1])], -1)[..., :channels] for images in photo())
    broken = torch.cat([noisy, noisy])
    broken[0, 3, 3, 0] = torch.nan
    both = torch.cat([clean, clean])
    cleaned, caption, usable, report = check(nodes, broken, both, "an astronaut")
    assert cleaned is both and caption == "" and not usable
    assert report.splitlines()[0] == "image 1: not usable, because the degraded image holds NaN or infinity"
    both = torch.cat([clean, 1 - clean])
    cleaned = check(nodes, broken, both)[0]
    assert cleaned.shape == both.shape and torch.equal(cleaned[0], clean[0]) and torch.equal(cleaned[1, ..., 3:], both[1, ..., 3:])
    torch.testing.assert_close(cleaned[1, ..., :3], noisy[0, ..., :3])


def test_the_caption_is_asked_for_only_when_connected_missing_and_safe(nodes):
    clean, noisy = photo()
    ask = nodes.DegradationCheck.check_lazy_status
    assert ask(noisy, clean, caption=None) == ["caption"]
    assert ask(noisy, 1 - clean, caption=None) == []
    assert ask(noisy, clean, caption="made") == [] and ask(noisy, clean) == []


# Caption Image


def test_an_image_is_captioned_once_through_comfyuis_memory_management(nodes, monkeypatch):
    import comfy.model_management

    loaded = []
    load = comfy.model_management.load_models_gpu
    monkeypatch.setattr(
        comfy.model_management, "load_models_gpu", lambda models, **more: (loaded.extend(models), load(models, **more))
    )
    with torch.inference_mode():
        first = nodes.CaptionImage.execute(photo()[0], FOLDER)
        assert len(loaded) == 1 and loaded[0] in comfy.model_management.loaded_models()
        again, other = (nodes.CaptionImage.execute(photo(name)[0], FOLDER).result[0] for name in ("astronaut", "coffee"))
    assert first.result[0] == again != other and other
    assert first.ui == {"text": [again]} and len(loaded) == 2


def test_a_network_that_does_not_fit_is_refused_in_one_sentence(nodes, monkeypatch):
    import comfy.model_management

    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("pretended")

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", full)
    with pytest.raises(ValueError, match=r"^Caption Image: a network of 0\.\d GB does not fit .*; use a smaller one\.$"):
        nodes.CaptionImage.execute(photo()[0], FOLDER)


def test_the_network_is_let_go_afterwards(nodes, monkeypatch):
    made = []
    make_patcher = nodes.make_patcher
    monkeypatch.setattr(nodes, "make_patcher", lambda module: (made.append(weakref.ref(module)), make_patcher(module))[1])
    with torch.inference_mode():
        nodes.CaptionImage.execute(photo()[0], FOLDER)
    assert len(made) == 1 and made[0]() is None


def test_captioning_can_be_interrupted(nodes):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException), torch.inference_mode():
        nodes.CaptionImage.execute(photo()[0], FOLDER)


def test_the_combo_offers_the_public_name_and_what_stands_in_the_folder(nodes):
    (model,) = (part for part in nodes.CaptionImage.define_schema().inputs if part.id == "model")
    assert model.options[0] == FOLDER and "another" in model.options


def test_missing_files_and_batches_are_refused_in_one_sentence(nodes):
    clean, _ = photo()
    with pytest.raises(ValueError, match=r"^Caption Image: config\.json is missing; put it into .*another, from"):
        nodes.CaptionImage.execute(clean, "another")
    with pytest.raises(ValueError, match=r"^Caption Image: 2 images; give one, because a prompt describes one image\.$"):
        nodes.CaptionImage.execute(clean.repeat(2, 1, 1, 1), FOLDER)
    with pytest.raises(ValueError, match=r"^Caption Image: image holds NaN or infinity in image 1; give images without\.$"):
        nodes.CaptionImage.execute(clean * torch.nan, FOLDER)


# In a graph


@pytest.fixture
def stocked(server):
    """A server with three images and two captioners: a small random one, and a folder without files."""
    root = server.base / "models" / "fluxir_captioners"
    (server.base / "input").mkdir(exist_ok=True)
    (root / "empty").mkdir(parents=True, exist_ok=True)
    if not (root / FOLDER).exists():
        (root / FOLDER).mkdir()
        write_qwen_folder(root / FOLDER)
    clean, noisy = photo()
    for name, image in {"clean": clean, "noisy": noisy, "ruined": 1 - clean}.items():
        pixels = (image[0].numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(server.base / "input" / f"{name}.png")
    return server


def run(server, cleaned, model):
    """(the check's image, caption, report) of a graph that captions `cleaned` with `model`; model None: no caption."""
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "noisy.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": f"{cleaned}.png"}},
        "3": {"class_type": "FluxIRDegradationCheck", "inputs": {"degraded": ["1", 0], "cleaned": ["2", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}},
    }
    if model is not None:
        graph["6"] = {"class_type": "FluxIRCaptionImage", "inputs": {"image": ["2", 0], "model": model}}
        graph["3"]["inputs"]["caption"] = ["6", 0]
    image = np.asarray(Image.open(server.run(graph)["4"][0]))
    texts = list(server.get("/history").values())[-1]["outputs"]
    return image, texts["5"]["text"][0], texts["3"]["text"][0]


def stored(server, name):
    return np.asarray(Image.open(server.base / "input" / f"{name}.png"))


def test_a_failing_check_skips_the_captioner_and_a_passing_one_runs_it(stocked):
    image, caption, report = run(stocked, "ruined", "empty")  # a captioner without files cannot run
    assert (image == stored(stocked, "noisy")).all() and caption == "" and "not usable, because" in report
    assert "Degradation Check: image 1: not usable" in (stocked.base / "comfyui.log").read_text(encoding="utf-8")
    with pytest.raises(ComfyUIError, match=r"CaptionImage: Caption Image: config\.json is missing; put it into"):
        run(stocked, "clean", "empty")
    image, caption, report = run(stocked, "clean", FOLDER)
    assert (image == stored(stocked, "clean")).all() and report.startswith("image 1: usable")
    captioner = core.Captioner(stocked.base / "models" / "fluxir_captioners" / FOLDER)
    planes = torch.from_numpy(stored(stocked, "clean").copy()).permute(2, 0, 1)[None].float() / 255
    assert [caption] == captioner(planes) and caption


def test_the_check_works_without_a_caption(stocked):
    assert run(stocked, "clean", None)[1] == "" and "not usable" in run(stocked, "ruined", None)[2]
