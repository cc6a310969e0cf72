"""Files of tensors: whatever is broken in one is noticed, and what was before it is used."""

import random
from contextlib import suppress

import pytest
import torch
from comfyui_fluxir.training.data.cache import TensorCache
from comfyui_fluxir.training.engine.checked_files import BrokenFile, checksum, read_checked, write_checked
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint

from .tiny_training import FlatImages, assert_equal, run


def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "step": 3,
        "weights": {"a": torch.randn(64, 64, generator=generator), "b": torch.randn(8, generator=generator).bfloat16()},
        "others": [torch.arange(5), (1.5, None, "text", True)],
        "nothing": torch.zeros(0),
    }


def resaved(change):
    def broken(data, path):
        path.write_bytes(data)
        saved = torch.load(path, weights_only=True)
        change(saved)
        torch.save(saved, path)
        return path.read_bytes()

    return broken


def flipped(place):
    """One bit of what torch.save wrote of a tensor."""

    def broken(data, path):
        at = data.index(state()["weights"]["a"].numpy().tobytes()[:64]) + place
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return broken


def other(value):
    def broken(data, path):
        torch.save(value, path)
        return path.read_bytes()

    return broken


BROKEN = {
    "empty": lambda data, path: b"",
    "text": lambda data, path: b"no checkpoint\n" * 50,
    "random bytes": lambda data, path: random.Random(0).randbytes(4000),
    "cut off": lambda data, path: data[: len(data) // 2],
    "cut off at its end": lambda data, path: data[:-1],
    "an old pickle": lambda data, path: b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N.",
    "a bit in the data": flipped(1),
    "another bit in the data": flipped(63),
    "a missing key": resaved(lambda saved: saved["state"].pop("weights")),
    "a missing tensor": resaved(lambda saved: saved["state"]["weights"].pop("b")),
    "a wrong shape": resaved(lambda saved: saved["state"]["weights"].update(b=torch.zeros(9))),
    "a wrong type": resaved(lambda saved: saved["state"]["weights"].update(b=torch.zeros(8))),
    "another step": resaved(lambda saved: saved["state"].update(step=4)),
    "without its checksum": resaved(lambda saved: saved.pop("checksum")),
    "a list": other([1, 2]),
    "a tensor": other(torch.zeros(3)),
    "an empty dictionary": other({}),
}


def breaks(path, how):
    path.write_bytes(BROKEN[how](path.read_bytes(), path))


def test_a_state_is_read_as_it_was_written(tmp_path):
    write_checked(tmp_path / "a.pt", state())
    assert checksum(read_checked(tmp_path / "a.pt")) == checksum(state())


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_never_read(tmp_path, how):
    write_checked(tmp_path / "a.pt", state())
    breaks(tmp_path / "a.pt", how)
    with pytest.raises(BrokenFile, match="a.pt (cannot be read|has no checksum|does not match its checksum)"):
        read_checked(tmp_path / "a.pt")


@pytest.mark.parametrize("how", BROKEN)
def test_of_a_runs_checkpoints_the_latest_whole_one_is_used(tmp_path, how, caplog):
    folder = RunFolder(tmp_path)
    folder.save(3, state())
    folder.save(6, {**state(), "step": 6})
    breaks(folder.path(6), how)
    assert folder.load()["step"] == 3
    assert "step-00000006.pt" in caplog.text and "passed over" in caplog.text


def test_any_bit_of_a_checkpoint_is_harmless_or_noticed(tmp_path):
    path, draw, wanted = tmp_path / "a.pt", random.Random(0), checksum(state())
    write_checked(path, state())
    data = path.read_bytes()
    for _ in range(200):
        at = draw.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        with suppress(BrokenFile):
            assert checksum(read_checked(path)) == wanted


def test_a_run_goes_on_from_the_checkpoint_that_fits(tmp_path):
    """A file that is whole, but of an adapter of another shape, or without its optimizer."""
    whole, folder = run(tmp_path / "whole"), RunFolder(tmp_path / "run")
    run(tmp_path / "run", checkpoint_every=3)
    saved = folder.load(6)
    for change in ({"adapter": {**saved["adapter"], "theta_y": torch.zeros(3)}}, {"optimizer": None}):
        run(tmp_path / "run", checkpoint_every=3)
        folder.save(6, {name: value for name, value in {**saved, **change}.items() if value is not None})
        batches = FlatImages()
        assert_equal(run(tmp_path / "run", batches=batches, checkpoint_every=3), whole)
        assert batches.given[0][0] == 3


def test_a_broken_checkpoint_never_outlives_a_whole_one(tmp_path):
    folder = RunFolder(tmp_path, keep=1)
    for step in (3, 6):
        RunFolder(tmp_path, keep=2).save(step, {"step": step})
    folder.path(6).write_bytes(b"broken")
    assert folder.load()["step"] == 3
    folder.save(4, {"step": 4})
    assert folder.steps() == [4]


@pytest.mark.parametrize("how", ["text", "cut off", "a list"])
def test_a_stage_of_the_miniature_goes_on_from_the_file_before(tmp_path, how, caplog):
    module, path = torch.nn.Linear(2, 2), tmp_path / "a.pt"
    for step in Checkpoint(path, every=-1).steps(3, module):
        module.weight.data.fill_(step)
    breaks(path, how)
    resumed = torch.nn.Linear(2, 2)
    assert list(Checkpoint(path).steps(3, resumed)) == [2] and resumed.weight[0, 0] == 1
    for broken in tmp_path.iterdir():
        broken.write_bytes(b"broken")
    assert list(Checkpoint(path).steps(3, resumed)) == [0, 1, 2] and "passed over" in caplog.text


def test_a_stage_does_not_load_another_shape(tmp_path, caplog):
    list(Checkpoint(tmp_path / "a.pt").steps(1, torch.nn.Linear(2, 2)))
    assert list(Checkpoint(tmp_path / "a.pt").steps(1, torch.nn.Linear(3, 2))) == [0]
    assert "does not fit: state.0.weight has the shape [2, 2], not [2, 3]" in caplog.text


@pytest.mark.parametrize("how", ["a bit", "cut off", "text", "without its checksum", "another key's"])
def test_a_broken_file_of_a_cache_counts_as_missing(tmp_path, how, caplog):
    from safetensors.torch import save_file

    cache, tensors = TensorCache(tmp_path, "latents"), {"clean": torch.randn(4, 8), "degraded": torch.randn(4, 8).half()}
    cache.put("a", tensors)
    assert all(torch.equal(cache.get("a")[name], value) for name, value in tensors.items())
    (path,) = tmp_path.rglob("*.safetensors")
    data = path.read_bytes()
    if how == "a bit":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 16]) + data[-2:])
    elif how == "another key's":
        save_file({"clean": torch.zeros(2)}, path, {"checksum": checksum(tensors)})
    elif how == "without its checksum":
        save_file(tensors, path)
    else:
        path.write_bytes({"cut off": data[:-3], "text": b"text"}[how])
    assert cache.get("a") is None and "is broken; it is made again" in caplog.text
    cache.put("a", tensors)
    assert torch.equal(cache.get("a")["clean"], tensors["clean"])
