"""Damaged and hostile files of every kind that the pack reads: each is refused in one sentence that names it, at once."""

import json
import math

import pytest
import torch
from comfyui_fluxir.fluxir_core.lora.files import check_lora_base

from ..hosts.tiny import TINY
from .hostile_files import TEXTS, copied, refused, rewrite, whole_files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_files(tmp_path_factory.mktemp("whole"))


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
