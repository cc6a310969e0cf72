"""Damaged and hostile files of every kind that the pack reads: each is refused in one sentence that names it, at once."""

import json
import math
import shutil
import time
from functools import partial

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.caption import Captioner
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.flux.prompt_files import load_prompt
from comfyui_fluxir.fluxir_core.flux.weight_files import LONGEST_JSON, parse_json
from comfyui_fluxir.fluxir_core.lora.few_steps import read_schedules
from comfyui_fluxir.fluxir_core.lora.files import check_lora_base, load_lora
from comfyui_fluxir.fluxir_core.lora.peft_files import load_peft
from comfyui_fluxir.fluxir_core.lucidflux.files import load_lucidflux
from comfyui_fluxir.fluxir_core.lucidflux.lora import load_branch_lora
from comfyui_fluxir.fluxir_core.verify.aesthetic import AestheticPredictor
from comfyui_fluxir.fluxir_core.verify.clip_score import load_clip
from comfyui_fluxir.fluxir_core.verify.image_reward import ImageReward
from safetensors import safe_open
from safetensors.torch import save_file

from ..fuzz.harness import assert_sentence
from ..hosts.tiny import TINY, write_tiny, write_tiny_lora, write_tiny_student
from .lucidflux_reference import random_weights
from .public_captioner import write_qwen_folder
from .public_layouts import head_shapes, random_state, write_clip_folder, write_image_reward_folder

PATIENCE = 5
"""Seconds in which every file is refused; more than the one that is promised, for machines that do much at once."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{what it is: (how to load its folder, the folder's file of weights, the folder)}."""
    root = tmp_path_factory.mktemp("whole")

    def folder(name):
        (root / name).mkdir()
        return root / name

    write_tiny(folder("fluxir"))
    write_tiny_lora(folder("lora") / "lora.safetensors")
    write_tiny_student(folder("student") / "student.safetensors")
    save_file(random_weights(), folder("lucidflux") / "lucidflux.safetensors")
    torch.save(random_weights(), folder("pickle") / "lucidflux.pth")
    save_file({"txt": torch.ones(1, 7, 64), "vec": torch.ones(1, 32)}, folder("prompt") / "prompt.safetensors")
    layer = {"lq.x.lora_A.weight": torch.ones(2, 8), "lq.x.lora_B.weight": torch.ones(4, 2)}
    for name in ("peft", "branch"):
        save_file(layer, folder(name) / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "alpha_pattern": {"x": 2}}
        (root / name / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    write_clip_folder(folder("clip"))
    write_clip_folder(folder("aesthetic"))
    save_file(random_state(head_shapes(24)), root / "aesthetic" / "head.safetensors")
    write_image_reward_folder(folder("reward"))
    write_qwen_folder(folder("captioner"))
    found = {
        "fluxir": (
            lambda at: load_adapter(at / "fluxir_adapters" / "mini-flux-fluxir.safetensors"),
            "mini-flux-fluxir.safetensors",
        ),
        "lora": (lambda at: load_lora(at / "lora.safetensors"), "lora.safetensors"),
        "student": (
            lambda at: (read_schedules(at / "student.safetensors"), load_lora(at / "student.safetensors")),
            "student.safetensors",
        ),
        "lucidflux": (lambda at: load_lucidflux(at / "lucidflux.safetensors"), "lucidflux.safetensors"),
        "pickle": (lambda at: load_lucidflux(at / "lucidflux.pth"), "lucidflux.pth"),
        "prompt": (lambda at: load_prompt(at / "prompt.safetensors"), "prompt.safetensors"),
        "peft": (lambda at: load_peft(at / "adapter_model.safetensors"), "adapter_model.safetensors"),
        "branch": (lambda at: load_branch_lora(at / "adapter_model.safetensors"), "adapter_model.safetensors"),
        "clip": (load_clip, "model.safetensors"),
        "aesthetic": (lambda at: AestheticPredictor(at, at / "head.safetensors"), "head.safetensors"),
        "reward": (partial(ImageReward, prompt="a photo"), "ImageReward.pt"),
        "captioner": (Captioner, "model.safetensors"),
    }
    for name, (load, _) in found.items():
        load(root / name)  # and its libraries, once
    return {name: (load, file, root / name) for name, (load, file) in found.items()}


def copied(whole, kind, tmp_path):
    load, file, folder = whole[kind]
    shutil.copytree(folder, tmp_path / kind)
    return load, next((tmp_path / kind).rglob(file)), tmp_path / kind


def refused(load, folder, *names):
    """The sentence in which `folder` is refused."""
    started = time.monotonic()
    with pytest.raises(ValueError) as caught:
        load(folder)
    assert time.monotonic() - started < PATIENCE
    assert_sentence(caught.value, *names)
    return str(caught.value)


def rewrite(path, change):
    """Changes the tensors and the metadata of a file by `change(weights, metadata)`."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            metadata, weights = dict(file.metadata() or {}), {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        change(weights, metadata)
        save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata)
    else:
        weights = torch.load(path, weights_only=True)
        change(weights, {})
        torch.save(weights, path)


# Weights

WEIGHTED = ("fluxir", "lora", "student", "lucidflux", "pickle", "prompt", "peft", "branch", "clip", "aesthetic", "reward")
ENDLESS = torch.zeros(1).expand(10**6, 10**6)
"""Four bytes that say to be four terabytes."""


def first(weights):
    return next(key for key, value in weights.items() if "position_ids" not in key and value.ndim)


DAMAGES = {
    "int8": lambda w: w.update({first(w): w[first(w)].to(torch.int8)}),
    "bool": lambda w: w.update({first(w): w[first(w)] > 0}),
    "complex": lambda w: w.update({first(w): w[first(w)].to(torch.complex64)}),
    "NaN": lambda w: w.update({first(w): w[first(w)] * math.nan}),
    "infinity": lambda w: w.update({first(w): w[first(w)] * math.inf}),
    "missing": lambda w: w.pop(first(w)),
    "empty": lambda w: w.update({first(w): torch.zeros(0)}),
    "no dimensions": lambda w: w.update({first(w): torch.tensor(1.0)}),
    "many dimensions": lambda w: w.update({first(w): torch.ones(1, 1, 1, 1, 1, 1)}),
    "absurd sizes of nothing": lambda w: w.update({key: torch.zeros(10**9, 0) for key in list(w)}),
    "a million of nothing": lambda w: w.update({key: torch.zeros(0, 10**6) for key in list(w)}),
}


@pytest.mark.parametrize("kind", WEIGHTED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(whole, tmp_path, kind, damage):
    load, path, folder = copied(whole, kind, tmp_path)
    rewrite(path, lambda weights, _: DAMAGES[damage](weights))
    refused(load, folder, path.name)


@pytest.mark.parametrize("kind", [*WEIGHTED, "captioner"])
@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\0" * 64, b"PK\3\4" + b"\0" * 64, (2**62).to_bytes(8, "little") + b"{}", b"\x80\x04cos\nsystem\n(S'true'\ntR."],
    ids=["nothing", "a letter", "zeros", "half a zip", "an endless header", "a command"],
)
def test_what_is_no_file_of_weights_is_refused(whole, tmp_path, kind, content):
    load, path, folder = copied(whole, kind, tmp_path)
    path.write_bytes(content)
    refused(load, folder, path.name)


@pytest.mark.parametrize("kind", ["fluxir", "lora", "lucidflux", "captioner"])
@pytest.mark.parametrize(
    "header", ['{"__metadata__":' + '{"a":' * 5000, '{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', "[1]"]
)
def test_a_hostile_header_is_refused(whole, tmp_path, kind, header):
    load, path, folder = copied(whole, kind, tmp_path)
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    refused(load, folder, path.name)


def endless(weights):
    weights["condition_lq.img_in.weight"] = ENDLESS


def circle(weights):
    weights["condition_lq"] = weights


@pytest.mark.parametrize("damage", [endless, circle])
def test_a_pickle_that_says_more_than_it_holds_is_refused(whole, tmp_path, damage):
    load, path, folder = copied(whole, "pickle", tmp_path)
    rewrite(path, lambda weights, _: damage(weights))
    refused(load, folder, path.name)


def test_a_whole_lucidflux_of_a_few_numbers_is_refused(whole, tmp_path):
    """All shapes fit each other, at a size that no memory holds."""
    load, path, folder = copied(whole, "pickle", tmp_path)
    huge = {name: torch.zeros(1).expand(shape) for name, shape in _layout(hidden=128 * 4000).items()}
    torch.save(huge, path)
    assert "is not stored number by number" in refused(load, folder, path.name)


def _layout(**sizes):
    from .lucidflux_reference import layout

    return layout(**sizes)


@pytest.mark.parametrize("number", ["1000000", "999999", "-1", "x"])
def test_a_block_of_an_absurd_number_is_refused(whole, tmp_path, number):
    load, path, folder = copied(whole, "lucidflux", tmp_path)

    def renamed(weights, _metadata):
        for key in [key for key in weights if "double_blocks.1" in key]:
            weights[key.replace("double_blocks.1", f"double_blocks.{number}")] = weights.pop(key)

    rewrite(path, renamed)
    refused(load, folder, path.name)


@pytest.mark.parametrize("number", ["1000000", "-1", "x"])
def test_a_lora_on_a_block_of_an_absurd_number_fits_no_base(whole, tmp_path, number):
    load, path, folder = copied(whole, "lora", tmp_path)

    def renamed(weights, _metadata):
        for key in [key for key in weights if ".transformer_blocks.1." in key]:
            weights[key.replace("blocks.1.", f"blocks.{number}.")] = weights.pop(key)

    rewrite(path, renamed)
    with pytest.raises(ValueError, match=rf"another base model .it changes transformer_blocks.{number}"):
        check_lora_base(load(folder), TINY)


# Metadata

TEXTS = ("", "x", "[]", "null", "true", "1", '"x"', "[" * 5000, "{}", "NaN", '{"a": 1, "a": 2}', " " * (LONGEST_JSON + 1))
NUMBERS = ("x", "", None, True, -1, 0.5, 2**31, 2**63, 10**400, math.nan, math.inf, [], {}, [1], {"a": 1})


@pytest.mark.parametrize("kind, field", [("fluxir", "config"), ("lora", "mode"), ("lora", "dims"), ("student", "schedules")])
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12].strip() or "blank")
def test_metadata_that_say_something_else_are_refused(whole, tmp_path, kind, field, text):
    if (kind, field, text) in (("lora", "mode", "{}"), ("student", "schedules", "{}")):
        return  # all fields have defaults; no schedules
    load, path, folder = copied(whole, kind, tmp_path)
    rewrite(path, lambda _, metadata: metadata.update({field: text}))
    refused(load, folder, path.name)


FIELDS = {
    "fluxir": {"config": ("rank", "text_tokens", "input", "inject", "guidance", "dims")},
    "lora": {
        "mode": ("positions", "tokens", "attention", "images", "timestep"),
        "dims": ("hidden_size", "num_heads", "double_blocks", "single_blocks", "guidance_embed"),
    },
}
RIGHT = {("rank", None), ("timestep", None), ("guidance_embed", True), ("guidance", 0.5), ("timestep", 0.5)}


@pytest.mark.parametrize(
    "kind, field, name", [(k, f, n) for k, fields in FIELDS.items() for f, names in fields.items() for n in names]
)
def test_a_field_of_another_kind_is_refused(whole, tmp_path, kind, field, name):
    """Text, nothing, truth, absurd numbers and none: each in the place of what the field is."""
    load, path, folder = copied(whole, kind, tmp_path)
    original = path.read_bytes()
    for value in NUMBERS:
        if (name, value if not isinstance(value, (list, dict)) else "") in RIGHT:
            continue
        path.write_bytes(original)

        def change(_, metadata, value=value):
            stated = json.loads(metadata[field])
            stated[name] = value
            metadata[field] = json.dumps(stated)

        rewrite(path, change)
        refused(load, folder, path.name)


@pytest.mark.parametrize(
    "name", ["double_blocks", "single_blocks", "hidden_size", "num_heads", "in_channels", "vec_dim", "context_dim"]
)
@pytest.mark.parametrize("value", [0, 7, 1000, 10**6, 10**9])
def test_absurd_dimensions_of_an_adapter_are_refused(whole, tmp_path, name, value):
    if name.endswith("blocks") and not value:
        return  # an adapter of a base without such blocks, with weights left over
    load, path, folder = copied(whole, "fluxir", tmp_path)

    def change(_, metadata):
        config = json.loads(metadata["config"])
        config["dims"][name] = value
        metadata["config"] = json.dumps(config)

    rewrite(path, change)
    refused(load, folder, path.name)


@pytest.mark.parametrize(
    "schedules",
    [
        {"-1": [1.0, 0.0]},
        {"0": [0.0]},
        {"x": [1.0, 0.0]},
        {"1": [-1, 0.0]},
        {"1": [1.0, -1]},
        {"1": [0.0, 1.0]},
        {"1": [2.0, 0.0]},
        {"1": ["1.0", "0.0"]},
        {"1": [True, False]},
        {"1": [math.nan, 0.0]},
        {"1": [math.inf, 0.0]},
        {"1": None},
        {"1": 1},
        {"1": {}},
        {"2": [1.0, 0.0]},
        {"1" * 5000: [1.0, 0.0]},
        [[1.0, 0.0]],
    ],
    ids=lambda value: str(value)[:24],
)
def test_schedules_that_are_none_are_refused(whole, tmp_path, schedules):
    load, path, folder = copied(whole, "student", tmp_path)
    rewrite(path, lambda _, metadata: metadata.update(schedules=json.dumps(schedules)))
    refused(load, folder, path.name)


PEFT = (
    [{"lora_alpha": value} for value in ("x", True, [], math.nan, 10**400)]
    + [{"alpha_pattern": value} for value in ("x", [1], {"(a+)+$": 1}, {"x": "y"}, {"x": None})]
    + [{"use_rslora": "yes"}]
)


@pytest.mark.parametrize("change", PEFT, ids=str)
def test_a_strength_that_is_none_is_refused(whole, tmp_path, change):
    """In diffusers' header, and in the file beside the weights."""
    load, path, folder = copied(whole, "peft", tmp_path)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 1} | change), encoding="utf-8")
    refused(load, folder, "adapter_config.json", path.name)
    load, path, folder = copied(whole, "lora", tmp_path)
    rewrite(path, lambda _, metadata: metadata.update(lora_adapter_metadata=json.dumps({"lora_alpha": 1} | change)))
    refused(load, folder, path.name)


# Configurations beside the weights

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
