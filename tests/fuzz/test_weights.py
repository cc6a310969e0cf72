"""Weight files that were damaged or written by somebody else: each is loaded as what it says, or refused by its name at once."""

import json
import math
import shutil
import time

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.caption import Captioner
from comfyui_fluxir.fluxir_core.flux.prompt_files import load_prompt
from comfyui_fluxir.fluxir_core.lora.few_steps import read_schedules
from comfyui_fluxir.fluxir_core.lora.files import load_lora
from comfyui_fluxir.fluxir_core.lora.peft_files import load_peft
from comfyui_fluxir.fluxir_core.lucidflux.files import load_lucidflux
from comfyui_fluxir.fluxir_core.verify.clip_score import load_clip
from comfyui_fluxir.fluxir_core.verify.image_reward import ImageReward
from comfyui_fluxir.training.diffusers_host.single_file import load_transformer, load_vae
from safetensors import safe_open
from safetensors.torch import save_file

from ..hosts.tiny import write_tiny, write_tiny_lora, write_tiny_student
from ..unit.lucidflux_reference import random_weights
from ..unit.public_captioner import write_qwen_folder
from ..unit.public_layouts import write_clip_folder, write_image_reward_folder
from .harness import assert_sentence, cases, repeatable

PATIENCE = 20
"""Seconds in which every file is refused; far more than the one that is promised, for machines that do much at once."""
FOLDERS = ("clip", "reward", "captioner", "peft")
HOSTILE = ("", "x", "0", "-1", "1e400", "NaN", "Infinity", "[]", "{}", "null", '"x"', "[" * 5000, "1" * 400, "ü", "true")
NUMBERS = (0, -1, 1, 2, 3, 10**6, 2**31, 2**63, -(2**40), 0.5, math.nan, math.inf, True, None, "x", [], {}, [1, 2, 3])
TYPES = (torch.int8, torch.uint8, torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)


def clip(path):
    return load_clip(path.parent)


def clip_config(path):
    return load_clip(path.parent)


def reward(path):
    return ImageReward(path.parent, "a photo")


def captioner(path):
    return Captioner(path.parent)


def captioner_config(path):
    return Captioner(path.parent)


def peft_config(path):
    return load_peft(path.parent / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{how to load: a whole file}."""
    folder = tmp_path_factory.mktemp("weights")
    paths = write_tiny(folder)
    write_tiny_lora(folder / "lora.safetensors")
    write_tiny_student(folder / "student.safetensors")
    save_file(random_weights(), folder / "lucidflux.safetensors")
    save_file({"txt": torch.ones(1, 7, 64), "vec": torch.ones(1, 32)}, folder / "prompt.safetensors")
    for name, write in (("clip", write_clip_folder), ("reward", write_image_reward_folder), ("captioner", write_qwen_folder)):
        (folder / name).mkdir()
        write(folder / name)
    pickled = folder / "reward" / "ImageReward.pt"
    save_file(torch.load(pickled, weights_only=True), pickled.with_suffix(".safetensors"))
    pickled.unlink()
    (folder / "peft").mkdir()
    save_file(
        {"x.lora_A.weight": torch.ones(2, 8), "x.lora_B.weight": torch.ones(4, 2)}, folder / "peft" / "adapter_model.safetensors"
    )
    (folder / "peft" / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 6}', encoding="utf-8")
    found = {
        load_adapter: paths["fluxir_adapters"],
        load_lora: folder / "lora.safetensors",
        read_schedules: folder / "student.safetensors",
        load_transformer: paths["diffusion_models"],
        load_vae: paths["vae"],
        load_lucidflux: folder / "lucidflux.safetensors",
        load_prompt: folder / "prompt.safetensors",
        load_peft: folder / "peft" / "adapter_model.safetensors",
        clip: folder / "clip" / "model.safetensors",
        clip_config: folder / "clip" / "config.json",
        reward: folder / "reward" / "ImageReward.safetensors",
        captioner: folder / "captioner" / "model.safetensors",
        captioner_config: folder / "captioner" / "config.json",
        peft_config: folder / "peft" / "adapter_config.json",
    }
    for load, path in found.items():
        load(path)  # and its libraries, once
    return found


def named(path):
    """What a refusal says of it: the file, or of what is read with others, the folder; peft's two files have one beginning."""
    folder = path.parent
    return path.name if folder.name not in FOLDERS else "adapter_" if folder.name == "peft" else str(folder)


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
        path = files[load]
        if path.parent.name in FOLDERS:  # the file is read with those beside it
            shutil.copytree(path.parent, tmp_path / path.parent.name, dirs_exist_ok=True)
            path = tmp_path / path.parent.name / path.name
        else:
            path = tmp_path / f"case{draw.number % 4}.safetensors"
        if draw.maybe(0.3):
            path.write_bytes(draw.mutated(files[load].read_bytes(), 2))
        elif path.suffix == ".json":
            path.write_text(_changed_json(draw, files[load].read_text(encoding="utf-8")), encoding="utf-8")
        else:
            rewritten(draw, files[load], path)
        before, started = path.read_bytes(), time.monotonic()
        with repeatable(draw, load.__name__):
            try:
                load(path)
            except ValueError as error:
                assert_sentence(error, named(path))
            assert time.monotonic() - started < PATIENCE
            assert path.read_bytes() == before
