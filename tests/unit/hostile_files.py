"""Whole files of every kind that the pack reads, to be damaged, and how they are refused."""

import json
import shutil
import time
from functools import partial

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.caption import Captioner
from comfyui_fluxir.fluxir_core.flux.prompt_files import load_prompt
from comfyui_fluxir.fluxir_core.flux.weight_files import LONGEST_JSON
from comfyui_fluxir.fluxir_core.lora.few_steps import read_schedules
from comfyui_fluxir.fluxir_core.lora.files import load_lora
from comfyui_fluxir.fluxir_core.lora.peft_files import load_peft
from comfyui_fluxir.fluxir_core.lucidflux.files import load_lucidflux
from comfyui_fluxir.fluxir_core.lucidflux.lora import load_branch_lora
from comfyui_fluxir.fluxir_core.verify.aesthetic import AestheticPredictor
from comfyui_fluxir.fluxir_core.verify.clip_score import load_clip
from comfyui_fluxir.fluxir_core.verify.image_reward import ImageReward
from safetensors import safe_open
from safetensors.torch import save_file

from ..fuzz.harness import assert_sentence
from ..hosts.tiny import write_tiny, write_tiny_lora, write_tiny_student
from .lucidflux_reference import random_weights
from .public_captioner import write_qwen_folder
from .public_layouts import head_shapes, random_state, write_clip_folder, write_image_reward_folder

PATIENCE = 5
"""Seconds in which every file is refused; more than the one that is promised, for machines that do much at once."""


def whole_files(root):
    """{what it is: (how to load its folder, the folder's file of weights, the folder)}, written to `root`."""

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


TEXTS = ("", "x", "[]", "null", "true", "1", '"x"', "[" * 5000, "{}", "NaN", '{"a": 1, "a": 2}', " " * (LONGEST_JSON + 1))
