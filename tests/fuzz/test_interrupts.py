"""Commands that are killed or stopped at any moment: the run that goes on ends as one that was never stopped, and leaves nothing."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import yaml
from comfyui_fluxir.training.cli import main
from PIL import Image
from safetensors.torch import load_file

from ..hosts.tiny import write_tiny
from .harness import cases, digest, repeatable

pytestmark = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="needs processes that fork")
PRELOADED = (
    "comfyui_fluxir.training.cli",
    "comfyui_fluxir.training.commands.restore",
    "comfyui_fluxir.training.commands.fluxgen",
    "comfyui_fluxir.training.recipes.train",
    "diffusers.models.transformers.transformer_flux",
    "diffusers.models.autoencoders.autoencoder_tiny",
)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_INTERRUPTIONS = 3
PATIENCE = 60
"""Seconds that a stopped command may take to end on a machine that does much at once; see `test_a_stopped_command_ends_soon`."""


@pytest.fixture(scope="module")
def start():
    """A function that starts a command in a process of its own, within milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))

    def started(line):
        process = context.Process(target=main, args=([str(word) for word in line],), daemon=True)
        process.start()
        return process

    return started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model folder with images in it."""
    folder = tmp_path_factory.mktemp("interrupts")
    write_tiny(folder)
    (folder / "images").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    values = {
        "base": {"folder": str(folder), "precision": "float32", "gradient_checkpointing": False},
        "data": {"images": str(folder / "images"), "buckets": ["32x32"], "text_tokens": 8, "held_out": 1},
        "adapter": {"rank": 4},
        "recipe": {"pixel_crop": 4},
        "optimizer": {"learning_rate": 3e-3, "warmup": 2},
        "run": {"steps": 4, "batch": 2, "micro_batch": 1, "checkpoint_every": 1, "validate_every": 2},
        "log": [],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def lines(inputs, out):
    """{name: the command line that writes to `out`}."""
    return {
        "degrade": ["fluxgen", "degrade", inputs / "images", out],
        "restore": ["restore", inputs / "images", out, "--model", inputs, "--steps", "2"],
        "train": ["train", "fluxir", "--config", inputs / "config.yaml", "--work", out / "work", "--out", out / "a.safetensors"],
    }


def results(out):
    """What a command made, but for locks, caches, checkpoints and what a kill left half-written under another name: weights by
    value, everything else by its bytes."""
    made = {
        name: value for name, value in digest(out).items() if not name.startswith("work/latents") and ".fluxir-lock" not in name
    }
    made = {name: value for name, value in made.items() if not name.endswith((".pt", ".safetensors", ".partial"))}
    return made, {path.name: load_file(path) for path in out.glob("*.safetensors")}


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, weights in expected[1].items():
        assert all((found[1][name][key] == value).all() for key, value in weights.items()), name


@pytest.fixture(scope="module")
def uninterrupted(start, inputs, tmp_path_factory):
    """{name: (its results, its seconds)} of each command that nobody stopped."""
    found = {}
    for name in lines(inputs, inputs):
        out = tmp_path_factory.mktemp(name)
        line = lines(inputs, out)[name]
        started, process = time.monotonic(), start(line)
        process.join(600)
        assert process.exitcode == 0, name
        found[name] = results(out), time.monotonic() - started
    return found


def test_a_command_that_was_stopped_goes_on_to_the_same_end(start, inputs, uninterrupted, tmp_path):
    for draw in cases("interrupts", 15):
        name, out = draw.choice(sorted(uninterrupted)), tmp_path / str(draw.number)
        out.mkdir()
        line, (expected, seconds) = lines(inputs, out)[name], uninterrupted[name]
        told = []
        with repeatable(draw, name):
            for _ in range(draw.randint(1, MOST_INTERRUPTIONS)):
                process, number = start(line), draw.choice(SIGNALS)
                process.join(draw.uniform(0, seconds))
                if process.exitcode is None:
                    os.kill(process.pid, number)
                    told.append(number.name)
                process.join(PATIENCE)
                assert process.exitcode is not None, f"{number.name} did not end it: {told}"
                assert process.exitcode in (0, -number, 130), f"it ended with {process.exitcode}: {told}"
            process = start(line)
            process.join(600)
            assert process.exitcode == 0, told
            assert_same(results(out), expected)
            left = [path for path in out.rglob("*.partial") if "SIGKILL" not in told]
            assert not left, left


def test_a_stopped_command_ends_soon(start, inputs, uninterrupted, tmp_path):
    """Within the image or the step at hand, not behind all that are left."""
    (tmp_path / "many").mkdir()
    for number in range(200):
        (tmp_path / "many" / f"{number}.png").write_bytes((inputs / "images" / f"{number % 6}.png").read_bytes())
    for draw in cases("stopping", 5):
        out = tmp_path / str(draw.number)
        line = draw.choice(
            (
                ["restore", tmp_path / "many", out, "--model", inputs, "--steps", "4"],
                ["fluxgen", "select", tmp_path / "many", out, "--metrics", "niqe"],
                ["fluxgen", "degrade", tmp_path / "many", out],
                ["eval", tmp_path / "many", tmp_path / "many", "--metrics", "--csv", tmp_path / f"{draw.number}.csv"],
            )
        )
        with repeatable(draw, str(line[:2])):
            process = start(line)
            process.join(draw.uniform(1, 4))
            if process.exitcode is None:
                started = time.monotonic()
                os.kill(process.pid, draw.choice((signal.SIGTERM, signal.SIGINT)))
                process.join(PATIENCE)
                assert process.exitcode in (0, 130) and time.monotonic() - started < 10  # 0: it was done by then
