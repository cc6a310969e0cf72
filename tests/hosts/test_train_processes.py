"""Training in real processes: DDP and FSDP over gloo match one process, and a killed run loses nothing."""

import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from comfyui_fluxir.training.engine.run_folder import RunFolder
from PIL import Image

from .tiny import write_tiny
from .workflow_host import free_port

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model folder with photos beside it."""
    folder = tmp_path_factory.mktemp("processes")
    write_tiny(folder)
    (folder / "photos").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    return folder


def command(folder, work, recipe="fluxir", precision="float32", processes=1, attention=None, **run):
    """The command line of a run, as a list; `attention` is UMMF's, where it is not the default."""
    values = {
        "base": {"folder": str(folder), "precision": precision, "gradient_checkpointing": recipe == "fluxir"},
        "data": {"images": str(folder / "photos"), "buckets": ["32x32"], "text_tokens": 8, "held_out": 1},
        "adapter": {"rank": 4, **({"mode": {"attention": attention}} if attention else {})},
        "recipe": {"pixel_crop": 4} if recipe == "fluxir" else {},
        "optimizer": {"learning_rate": 3e-3, "warmup": 2},
        "run": {"steps": STEPS, "batch": 4, "micro_batch": 1, "checkpoint_every": 2, "validate_every": 4, **run},
        "log": [],
    }
    work.mkdir(parents=True, exist_ok=True)
    (work / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    module = [
        "comfyui_fluxir.training.cli",
        "train",
        recipe,
        "--config",
        str(work / "config.yaml"),
        "--work",
        str(work),
        "--out",
        str(work / "out.safetensors"),
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, "-m", *module]


def on_two_machines(line):
    """The command lines of `line` (of `command`, for one process) on two machines, which are two addresses of this one."""
    launcher = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--master_port={free_port()}"]
    places = [["--master_addr=127.0.0.1", f"--node_rank={rank}", f"--local_addr=127.0.0.{rank + 1}"] for rank in (0, 1)]
    return [[line[0], *launcher, *own, *line[1:]] for own in places]


def start(arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, timeout=300):
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, said
    return said


def weights(work):
    return RunFolder(work).load()["adapter"]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The weights that one process makes, by recipe and precision."""

    @functools.cache
    def train(recipe, precision="float32", attention=None):
        work = tmp_path_factory.mktemp(recipe)
        finish(start(command(folder, work, recipe, precision, attention=attention)))
        assert (work / "out.safetensors").exists()
        return weights(work)

    return train


@pytest.mark.parametrize(
    ("recipe", "sharding", "precision", "attention"),
    [
        ("fluxir", "ddp", "float32", None),
        ("fluxir", "fsdp", "bf16", None),
        ("ummf", "fsdp", "float32", "joint"),
        ("ummf", "fsdp", "float32", "alone"),
    ],
)
def test_two_processes_match_one(folder, tmp_path, alone, recipe, sharding, precision, attention):
    finish(start(command(folder, tmp_path, recipe, precision, processes=2, attention=attention, sharding=sharding)))
    assert_close(weights(tmp_path), alone(recipe, precision, attention))
    assert (tmp_path / "out.safetensors").exists() and list((tmp_path / "samples").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_machines_match_one_process(folder, tmp_path, alone, sharding):
    machines = [start(line) for line in on_two_machines(command(folder, tmp_path, sharding=sharding))]
    for machine in machines:
        finish(machine)
    assert_close(weights(tmp_path), alone("fluxir"))
    assert (tmp_path / "out.safetensors").exists() and list((tmp_path / "samples").glob("*.png"))


@pytest.mark.slow
def test_two_machines_go_on_where_they_stopped(folder, tmp_path, alone):
    for steps in (2, STEPS):
        for machine in [start(line) for line in on_two_machines(command(folder, tmp_path, steps=steps))]:
            finish(machine)
    assert_close(weights(tmp_path), alone("fluxir"))


def test_a_sharded_run_is_resumed_by_one_process(folder, tmp_path, alone):
    finish(start(command(folder, tmp_path, processes=2, sharding="fsdp", steps=2)))
    finish(start(command(folder, tmp_path)))
    assert_close(weights(tmp_path), alone("fluxir"))


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-3, atol=2e-4, msg=lambda text: f"{name}: {text}")


def test_killed_in_the_middle_of_a_checkpoint_the_run_ends_as_if_it_had_not_been(folder, tmp_path, alone):
    work = tmp_path / "killed"
    process = start(command(folder, work, checkpoint_every=1))
    deadline = time.monotonic() + 200
    while not list(work.glob("*.partial")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    finish(start(command(folder, work, checkpoint_every=1)))
    for name, value in alone("fluxir").items():
        assert torch.equal(weights(work)[name], value), name


def test_sigterm_saves_in_every_process_and_exits_well(folder, tmp_path):
    process = start(command(folder, tmp_path, processes=2, steps=100_000, checkpoint_every=100_000))
    deadline = time.monotonic() + 200
    while not list((tmp_path / "latents").rglob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(10)  # behind the caches, in the middle of the steps
    for worker in _children(process.pid):
        os.kill(worker, signal.SIGTERM)
    said = finish(process, timeout=120)
    (step,) = RunFolder(tmp_path).steps()
    assert step > 0 and f"stopped after {step} of 100000 steps" in said and not (tmp_path / "out.safetensors").exists()


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return [int(child) for child in file.read().split()]
