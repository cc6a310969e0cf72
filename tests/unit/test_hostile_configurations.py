"""Damaged configurations, texts and JSON beside the weights: each is refused in one sentence that names it, at once."""

import json
import math
import time

import pytest
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.flux.weight_files import LONGEST_JSON, parse_json

from .hostile_files import PATIENCE, TEXTS, copied, refused, whole_files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_files(tmp_path_factory.mktemp("whole"))


CONFIGURATIONS = {"peft": "adapter_config.json", "branch": "adapter_config.json", "clip": "config.json", "captioner": "config.json"}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12].strip() or "blank")
def test_a_configuration_that_says_something_else_is_refused(whole, tmp_path, kind, text):
    if text == "{}" and CONFIGURATIONS[kind].startswith("adapter"):
        return  # a strength of 1
    load, _, folder = copied(whole, kind, tmp_path)
    (folder / CONFIGURATIONS[kind]).write_text(text, encoding="utf-8")
    refused(load, folder, CONFIGURATIONS[kind])
    (folder / CONFIGURATIONS[kind]).write_bytes(b"\xff\xfe{}")
    refused(load, folder, CONFIGURATIONS[kind])


@pytest.mark.parametrize("kind", ["clip", "captioner"])
@pytest.mark.parametrize("value", ["x", True, -1, 10**6, 10**9, 2**63, 0.5, [1], math.nan])
@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"])
def test_absurd_sizes_in_a_configuration_are_refused(whole, tmp_path, kind, value, name):
    load, _, folder = copied(whole, kind, tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (config["text_config"] if kind == "clip" else config)[name] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def load_all(at):
        loaded = load(at)
        return loaded.module if kind == "captioner" else loaded

    refused(load_all, folder, str(folder))


@pytest.mark.parametrize("index", [*TEXTS, '{"weight_map": 1}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../../x"}}'])
def test_an_index_that_names_no_files_is_refused(whole, tmp_path, index):
    load, path, folder = copied(whole, "captioner", tmp_path)
    path.unlink()
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    refused(load, folder, str(folder))


@pytest.mark.parametrize("words", [b"", b"\xff\xfe", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n"])
def test_a_vocabulary_that_is_none_is_refused(whole, tmp_path, words):
    load, _, folder = copied(whole, "reward", tmp_path)
    (folder / "vocab.txt").write_bytes(words)
    refused(load, folder, "vocab.txt")


# Data, and JSON itself


@pytest.mark.parametrize("text", [text for text in TEXTS if text != "{}"], ids=lambda text: text[:12].strip() or "blank")
def test_text_beside_an_image_that_says_something_else_is_refused(tmp_path, text):
    from comfyui_fluxir.fluxir_core.data.shards import ShardWriter
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    with ShardWriter(tmp_path / "shard-000000.tar") as shard:
        shard.add("one", {"hq.png": (tmp_path / "image.png").read_bytes()}, {"prompt": "MARK"})
    (tmp_path / "image.png").unlink()
    data = (tmp_path / "shard-000000.tar").read_bytes()
    described = b'{"prompt": "MARK"}'
    if len(text) > len(described):
        with pytest.raises(ValueError):
            parse_json(text)
        return
    assert described in data
    (tmp_path / "shard-000000.tar").write_bytes(data.replace(described, text.encode().ljust(len(described))))
    refused(lambda at: ImageSource(at).metadata_of(0), tmp_path, "one")


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "1e400", "[" * 10**5, '{"a": 1, "b": {"c": 1, "c": 1}}', "1" * 5000, b"\xff", "{"]
)
def test_json_that_nobody_needs_is_refused_at_once(text):
    started = time.monotonic()
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert time.monotonic() - started < 1 and "\n" not in str(caught.value)


def test_json_of_the_longest_kind_is_read_at_once():
    started = time.monotonic()
    assert len(parse_json("[" + "0.5," * (LONGEST_JSON // 4 - 1) + "1]")) == LONGEST_JSON // 4
    assert time.monotonic() - started < PATIENCE
