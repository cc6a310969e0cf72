"""Weight files that were damaged or written by somebody else: each is loaded as what it says, or refused by its name at once."""

import json
import math
import time

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.lora.few_steps import read_schedules
from comfyui_fluxir.fluxir_core.lora.files import load_lora
from comfyui_fluxir.training.diffusers_host.single_file import load_transformer, load_vae
from safetensors import safe_open
from safetensors.torch import save_file

from ..hosts.tiny import write_tiny, write_tiny_lora, write_tiny_student
from .harness import assert_sentence, cases, repeatable

PATIENCE = 20
"""Seconds in which every file is refused; far more than the one that is promised, for machines that do much at once."""
HOSTILE = ("", "x", "0", "-1", "1e400", "NaN", "Infinity", "[]", "{}", "null", '"x"', "[" * 5000, "1" * 400, "ü", "true")
NUMBERS = (0, -1, 1, 2, 3, 10**6, 2**31, 2**63, -(2**40), 0.5, math.nan, math.inf, True, None, "x", [], {}, [1, 2, 3])
TYPES = (torch.int8, torch.uint8, torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{how to load: a whole file}."""
    folder = tmp_path_factory.mktemp("weights")
    paths = write_tiny(folder)
    write_tiny_lora(folder / "lora.safetensors")
    write_tiny_student(folder / "student.safetensors")
    found = {
        load_adapter: paths["fluxir_adapters"],
        load_lora: folder / "lora.safetensors",
        read_schedules: folder / "student.safetensors",
        load_transformer: paths["diffusion_models"],
        load_vae: paths["vae"],
    }
    for load, path in found.items():
        load(path)  # and its libraries, once
    return found


def rewritten(draw, source, path):
    """`source` as `path`, with metadata and tensors changed one by one."""
    with safe_open(source, "pt") as file:
        metadata, weights = dict(file.metadata() or {}), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for _ in range(draw.randint(1, 3)):
        if metadata and draw.maybe():
            name = draw.choice(sorted(metadata))
            metadata[name] = _changed_json(draw, metadata[name]) if draw.maybe(0.8) else draw.choice(HOSTILE)
            if draw.maybe(0.1):
                del metadata[name]
            continue
        name = draw.choice(sorted(weights))
        weights = _changed_weight(draw, weights, name)
    save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata)


def _changed_json(draw, text):
    """The JSON `text` with one of its values, at any depth, replaced."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return draw.choice(HOSTILE)
    place = tree
    while isinstance(place, (dict, list)) and place:
        key = draw.choice(sorted(place)) if isinstance(place, dict) else draw.randrange(len(place))
        if not isinstance(place[key], (dict, list)) or draw.maybe(0.3):
            if draw.maybe(0.1) and isinstance(place, dict):
                del place[key]
            else:
                place[key] = draw.choice(NUMBERS)
            break
        place = place[key]
    return json.dumps(tree)


def _changed_weight(draw, weights, name):
    value, weights = weights[name], dict(weights)
    kind = draw.randrange(6)
    if kind == 0:
        del weights[name]
    elif kind == 1:
        weights[name] = value.to(draw.choice(TYPES))
    elif kind == 2 and value.is_floating_point() and value.numel():
        weights[name] = value.clone()
        weights[name].view(-1)[0] = draw.choice((math.nan, math.inf))
    elif kind == 3:
        weights[name] = torch.zeros([draw.choice((0, 1, 2, 7)) for _ in range(draw.randint(0, 4))])
    elif kind == 4:
        weights[draw.choice(("x", name + ".x", name[1:], name.replace("0", "999999"), name.replace(".", "_")))] = value.clone()
    else:
        weights[name.replace("0", "1000000")] = weights.pop(name)
    return weights or {name: value}


def test_a_weight_file_is_loaded_or_refused_by_its_name(files, tmp_path):
    for draw in cases("weights", 8):
        load = draw.choice(list(files))
        path = tmp_path / f"case{draw.number % 4}.safetensors"
        if draw.maybe(0.3):
            path.write_bytes(draw.mutated(files[load].read_bytes(), 2))
        else:
            rewritten(draw, files[load], path)
        before, started = path.read_bytes(), time.monotonic()
        with repeatable(draw, load.__name__):
            try:
                load(path)
            except ValueError as error:
                assert_sentence(error, path.name)
            assert time.monotonic() - started < PATIENCE
            assert path.read_bytes() == before
