"""The folder of a training run: its checkpoints, and who writes them."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from comfyui_fluxir.training.engine import fit
from comfyui_fluxir.training.engine.average import MovingAverage
from comfyui_fluxir.training.engine.fit import RunConfig
from comfyui_fluxir.training.engine.optimizers import OptimizerConfig
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint

from .tiny_training import FlatImages, Killed, assert_equal, kill, objective, run


def test_another_runs_folder_is_refused(tmp_path):
    from comfyui_fluxir.training.engine.fit import fit
    from comfyui_fluxir.training.engine.processes import make_accelerator

    settings = (FlatImages(), OptimizerConfig(), RunConfig(2, 8, 8), tmp_path, make_accelerator("ddp", "no"))
    fit(objective(), *settings, identity={"data": "one"})
    with pytest.raises(ValueError, match="another run's checkpoints .its data differ.; give another --work"):
        fit(objective(), *settings, identity={"data": "another"})


def test_a_resumed_run_lets_its_checkpoint_go(tmp_path, monkeypatch):
    class Saved(dict):
        pass

    load, alive, seen = RunFolder.load, [], []

    def watched(folder, **options):
        saved = load(folder, **options)
        if saved is not None:
            saved = Saved(saved)
            alive.append(weakref.ref(saved))
        return saved

    monkeypatch.setattr(RunFolder, "load", watched)
    with pytest.raises(Killed):
        run(tmp_path, batches=FlatImages(stop=(4, kill)), checkpoint_every=3)
    run(tmp_path, batches=FlatImages(stop=(4, lambda: seen.append((gc.collect() and None) or alive[0]()))))
    assert seen == [None]


@pytest.mark.parametrize(("is_main", "is_sharded", "gathered"), [(True, False, 1), (False, False, 0), (False, True, 1)])
def test_only_who_writes_a_checkpoint_or_has_a_shard_of_it_gathers_it(tmp_path, monkeypatch, is_main, is_sharded, gathered):

    found, module = [], torch.nn.Linear(2, 2)
    monkeypatch.setattr(fit, "whole", found.append)
    monkeypatch.setattr(fit, "is_sharded", lambda _module: is_sharded)
    changed = {"average": MovingAverage(module.parameters(), 0.9)}
    parts = (module, changed, torch.optim.SGD(module.parameters()))
    accelerator = SimpleNamespace(is_main_process=is_main, wait_for_everyone=lambda: None)
    fit._save(RunFolder(tmp_path), 3, *parts, {}, accelerator)
    assert len(found) == gathered and RunFolder(tmp_path).steps() == [3] * is_main


def test_old_checkpoints_go_and_a_broken_one_is_passed_over(tmp_path, caplog):
    whole, folder = run(tmp_path / "whole"), RunFolder(tmp_path / "run", keep=2)
    with pytest.raises(Killed):
        run(tmp_path / "run", batches=FlatImages(stop=(5, kill)), checkpoint_every=1)
    assert folder.steps() == [4, 5]
    folder.path(5).write_bytes(folder.path(5).read_bytes()[:1000])
    assert folder.load()["step"] == 4 and "cannot be read" in caplog.text
    assert_equal(run(tmp_path / "run"), whole)
    for step in folder.steps():
        folder.path(step).write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        folder.load()
    with pytest.raises(ValueError, match="holds no checkpoint after 77 steps; it has"):
        folder.load(77)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path, module = tmp_path / "a.pt", torch.nn.Linear(2, 2)
    list(Checkpoint(path).steps(1, module))
    saved = path.read_bytes()

    def half_written(_state, partial):
        partial.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        list(Checkpoint(path).steps(2, module))
    assert path.read_bytes() == saved
