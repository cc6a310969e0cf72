"""Checkpoints and caches that were damaged: what is read is exactly what was written, or what was written before."""

import logging

import pytest
import torch
from comfyui_fluxir.training.data.cache import TensorCache
from comfyui_fluxir.training.engine.checked_files import checksum
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint

from .harness import assert_sentence, cases, repeatable

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def tensor(draw):
    shape = [draw.randint(0, 5) for _ in range(draw.randint(0, 3))]
    own = torch.Generator().manual_seed(draw.getrandbits(32))
    return (torch.randn(shape, generator=own) * 10).to(draw.choice(TYPES))


def state(draw, step):
    """What a run may keep: dictionaries and lists of tensors and plain values."""

    def tree(depth):
        kind = draw.randrange(6 if depth else 3)
        if kind < 2:
            return tensor(draw)
        if kind == 2:
            return draw.choice((None, True, 1, -2.5, "text", "ü"))
        if kind == 3:
            return [tree(depth - 1) for _ in range(draw.randint(0, 3))]
        return {draw.choice(("a", "b", 3, "long name")): tree(depth - 1) for _ in range(draw.randint(0, 3))}

    return {"step": step, "adapter": tree(3), "optimizer": tree(3)}


def test_of_damaged_checkpoints_the_latest_whole_one_is_read(tmp_path):
    for draw in cases("checkpoints", 8):
        folder = RunFolder(tmp_path / str(draw.number), keep=3)
        states = {step: state(draw, step) for step in (1, 2, 3)}
        for step, own in states.items():
            folder.save(step, own)
        damaged = {step for step in states if draw.maybe()}
        for step in damaged:
            folder.path(step).write_bytes(draw.mutated(folder.path(step).read_bytes()))
        with repeatable(draw, f"{damaged} damaged"):
            try:
                found = folder.load()
            except ValueError as error:
                assert_sentence(error, str(folder.folder))
                assert damaged == {1, 2, 3}
                continue
            assert found["step"] >= max({1, 2, 3} - damaged, default=0)
            assert checksum(found) == checksum(states[found["step"]])
            if damaged:  # whoever goes on from there has a whole file again
                folder.save(found["step"] + 1, {**found, "step": found["step"] + 1})
                assert folder.load()["step"] == found["step"] + 1


def test_a_damaged_file_of_a_cache_is_read_as_it_was_or_counts_as_missing(tmp_path):
    for draw in cases("caches", 3):
        cache = TensorCache(tmp_path, draw.number)
        kept = {name: tensor(draw) for name in draw.sample(("clean", "degraded", "text"), draw.randint(1, 3))}
        cache.put("key", kept)
        (path,) = cache.folder.rglob("*.safetensors")
        path.write_bytes(draw.mutated(path.read_bytes()))
        with repeatable(draw):
            found = cache.get("key")
            assert found is None or checksum(dict(sorted(found.items()))) == checksum(dict(sorted(kept.items())))
            cache.put("key", kept)
            assert checksum(cache.get("key")) == checksum(dict(sorted(kept.items())))


def test_a_stage_goes_on_from_a_whole_file_or_begins_again(tmp_path):
    for draw in cases("stages", 3):
        path, module = tmp_path / f"{draw.number}.pt", torch.nn.Linear(2, 2)
        for step in Checkpoint(path, every=-1).steps(3, module):
            module.weight.data.fill_(step)
        for file in (path, path.with_suffix(".before.pt")):
            if draw.maybe():
                file.write_bytes(draw.mutated(file.read_bytes()))
        with repeatable(draw):
            resumed = torch.nn.Linear(2, 2)
            left = list(Checkpoint(path).steps(3, resumed))
            assert left in ([], [2], [0, 1, 2])
            assert len(left) == 3 or (resumed.weight == 2 - len(left)).all()
