"""The captioner: a small random Qwen2.5-VL in exactly the layout of the public folder."""

import json
import re

import pytest
import torch
from comfyui_fluxir.fluxir_core import caption
from comfyui_fluxir.fluxir_core.caption import CHAT, MOST_TOKENS, REQUEST, Captioner, CaptionerFileError
from safetensors.torch import load_file, save_file

from .public_captioner import write_qwen_folder
from .public_layouts import images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_qwen_folder(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def captioner(folder):
    return Captioner(folder)


@pytest.fixture(autouse=True)
def nothing_kept():
    caption._captions.clear()


def copy(folder, target, leave_out=()):
    for file in folder.iterdir():
        if file.name not in leave_out:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_every_image_has_a_caption_of_its_own_and_always_the_same(captioner):
    captions = captioner(images())
    assert len(captions) == 3 and len(set(captions)) == 3 and all(captions)
    caption._captions.clear()
    assert [captioner(image)[0] for image in images().split(1)] == captions
    assert all(text == " ".join(text.split()) for text in captions)


def test_the_image_decides_the_first_word_already(captioner):
    logits = []
    for pixels in captioner._seen(images(2)):
        inputs = captioner.processor(text=[CHAT], images=[caption.Image.fromarray(pixels)], return_tensors="pt")
        with torch.no_grad():
            logits.append(captioner.module(**inputs).logits[:, -1])
    assert (logits[0] - logits[1]).abs().max() > 0.1


def test_the_request_has_the_form_of_the_folders_own_template(captioner):
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": REQUEST}]}]
    assert captioner.processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == CHAT
    for word in ("subjects", "materials", "textures", "layout", "lighting", "one paragraph"):
        assert word in REQUEST
    assert "not mention blur, noise, compression or other defects" in REQUEST


def test_an_unchanged_image_is_captioned_once(folder, monkeypatch):
    captioner, again = Captioner(folder), Captioner(folder)
    levels = (images() * 255).round() / 255
    assert not captioner.knows(levels)
    first = captioner(levels)
    assert captioner.knows(levels) and again.knows(levels + 1e-4) and not again.knows(levels.flip(3))
    assert again(levels) == first and "module" not in vars(again)
    monkeypatch.setattr(caption, "CHAT", CHAT + "another")
    assert not again.knows(levels)


def test_another_folder_has_other_captions(folder, captioner, tmp_path):
    captioner(images(1))
    assert not Captioner(copy(folder, tmp_path)).knows(images(1))


def test_the_latest_captions_are_kept(captioner, monkeypatch):
    monkeypatch.setattr(caption, "CAPTIONS_KEPT", 2)
    monkeypatch.setattr(Captioner, "_describe", lambda self, pixels, on_token: str(pixels.mean()))
    one, two, three = images().split(1)
    for image in (one, two, one, three):
        captioner(image)
    assert captioner.knows(one) and captioner.knows(three) and not captioner.knows(two)


def test_work_is_reported_token_by_token_and_can_be_stopped(captioner):
    class Stop(BaseException):
        pass

    calls = []

    def count():
        calls.append(1)
        if len(calls) == 5:
            raise Stop

    with pytest.raises(Stop):
        captioner(images(1), count)
    assert not captioner.knows(images(1))
    calls[:] = [1] * 5
    captioner(images(1), count)
    assert 5 < len(calls) <= 5 + 1 + MOST_TOKENS


def test_large_images_are_seen_at_a_megapixel_and_tiny_ones_at_all(captioner):
    for shape in ((3, 1500, 2000), (3, 3000, 90), (1, 20, 31), (4, 3, 3)):
        (pixels,) = captioner._seen(torch.rand(1, *shape).half())
        assert pixels.shape[2] == 3 and 56 <= min(pixels.shape[:2]) and pixels.shape[0] * pixels.shape[1] < 1.01 * 2**20
    assert captioner(torch.rand(1, 1, 3, 5))[0]


def test_nan_is_refused_by_name(captioner):
    broken = images()
    broken[1, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="caption: image 2 holds NaN or infinity; give one without"):
        captioner(broken)


def test_several_files_of_weights_are_one_model(folder, captioner, tmp_path):
    several = Captioner(write_qwen_folder(tmp_path, shards=3))
    assert not (tmp_path / "model.safetensors").exists() and several(images(1)) == captioner(images(1))


def test_files_in_half_precision_stay_so(folder, tmp_path):
    copy(folder, tmp_path, ["model.safetensors"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}), encoding="utf-8")
    halved = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halved, tmp_path / "model.safetensors", {"format": "pt"})
    captioner = Captioner(tmp_path)
    assert {p.dtype for p in captioner.module.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in captioner.module.parameters()) and captioner(images(1))[0]


def test_the_3b_models_tied_words_are_not_missing(folder, tmp_path):
    copy(folder, tmp_path, ["model.safetensors"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    module = Captioner(tmp_path).module
    assert torch.equal(module.lm_head.weight, weights["model.embed_tokens.weight"])


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_its_folder_and_source(folder, tmp_path, missing):
    copy(folder, tmp_path, [missing])
    with pytest.raises(CaptionerFileError) as refused:
        Captioner(tmp_path)
    source = "Qwen/Qwen2.5-VL-7B-Instruct on Hugging Face"
    assert re.fullmatch(f"caption: {missing}.* is missing; put it into {tmp_path}, from {source}.", str(refused.value))


def test_a_missing_part_of_the_weights_or_tokenizer_is_named(folder, tmp_path):
    (tmp_path / "several").mkdir()
    write_qwen_folder(tmp_path / "several", shards=2)
    (tmp_path / "several" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CaptionerFileError, match=r"caption: model-00002-of-00002\.safetensors is missing; put it into"):
        Captioner(tmp_path / "several")
    with pytest.raises(CaptionerFileError, match=r"caption: tokenizer\.json or vocab\.json is missing"):
        Captioner(copy(folder, tmp_path, ["tokenizer.json", "vocab.json"]))
    with pytest.raises(CaptionerFileError, match=r"caption: config\.json is missing"):
        Captioner(tmp_path / "nowhere")


def test_files_of_another_model_or_broken_ones_are_refused(folder, tmp_path):
    copy(folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weights[name] for name in weights if name != "visual.merger.mlp.2.bias"},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CaptionerFileError, match=r"the weights in .* lack .*visual\.merger\.mlp\.2\.bias; get them"):
        Captioner(tmp_path).module
    (tmp_path / "model.safetensors").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(CaptionerFileError, match="caption: in .*, model.safetensors cannot be read"):
        Captioner(tmp_path).module
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CaptionerFileError, match=r"index\.json names no files of weights"):
        Captioner(tmp_path)
    copy(folder, tmp_path)
    for described in ('{"model_type": "qwen3_vl"}', "<!DOCTYPE html>"):
        (tmp_path / "config.json").write_text(described, encoding="utf-8")
        with pytest.raises(CaptionerFileError, match="config.json is not Qwen2.5-VL.s .it .*; get it from Qwen/"):
            Captioner(tmp_path)


def test_the_network_is_never_asked(folder, monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert Captioner(folder)(images(1))[0]


def test_importing_the_captioner_imports_no_transformers():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(caption.__file__).read_text(encoding="utf-8"))
    at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {a.name for node in at_top for a in node.names} | {getattr(node, "module", "") for node in at_top}
    assert "transformers" not in names
