"""The training loop: it learns, it resumes bit for bit, it stops when it should, and it loses nothing."""

import io
import logging
from datetime import timedelta

import pytest
import torch
from comfyui_fluxir.training.engine import fit, progress
from comfyui_fluxir.training.engine.average import MovingAverage
from comfyui_fluxir.training.engine.draws import Draws
from comfyui_fluxir.training.engine.optimizers import OptimizerConfig
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.recipes.fluxir import pixel_loss

from .tiny_training import FlatImages, Killed, assert_equal, decode, flow_error, kill, objective, run, tiny_host


@pytest.mark.parametrize(("alpha", "optimizer"), [(0.0, "adamw"), (1.0, "adamw"), (1.0, "adamw8bit")])
def test_the_adapter_learns(tmp_path, alpha, optimizer):
    host = tiny_host()
    before = flow_error(host)
    trained = run(tmp_path, 60, objective(host, alpha=alpha), optimizer={"name": optimizer})
    assert flow_error(host, trained) < 0.7 * before


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "prodigy"])
def test_a_resumed_run_ends_bit_identical(tmp_path, optimizer):
    settings = {"name": optimizer, "learning_rate": 1.0 if optimizer == "prodigy" else 3e-3}
    whole = run(tmp_path / "whole", optimizer=settings)
    with pytest.raises(Killed):
        run(tmp_path / "resumed", batches=FlatImages(stop=(4, kill)), optimizer=settings, checkpoint_every=3)
    assert RunFolder(tmp_path / "resumed").steps() == [3]
    assert_equal(run(tmp_path / "resumed", optimizer=settings), whole)


def test_a_finished_run_is_not_run_again(tmp_path):
    first, batches = run(tmp_path), FlatImages()
    assert_equal(run(tmp_path, batches=batches), first)
    assert batches.given == []


@pytest.mark.parametrize("pixel_stride", [1, 2])
def test_how_a_batch_is_split_changes_nothing_but_rounding(tmp_path, pixel_stride):
    whole = run(tmp_path / "whole", goal=objective(pixel_stride=pixel_stride))
    split = run(tmp_path / "split", goal=objective(pixel_stride=pixel_stride), micro_batch=3)
    assert_equal(whole, split, rtol=1e-3, atol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(tmp_path):
    plain, host = run(tmp_path / "plain"), tiny_host()
    host.transformer.enable_gradient_checkpointing()
    host.transformer.train()
    assert_equal(run(tmp_path / "checkpointed", goal=objective(host)), plain, rtol=1e-4, atol=1e-5)


def test_the_line_beside_the_log_says_how_far_how_well_and_until_when(monkeypatch):
    clock, file = [0.0], io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress(10, 4, True, file) as line:
        for step in (5, 6):
            clock[0] += 2
            line.step(images=8, loss=0.5 / step)
            line.checkpoint(step)
        line.bar.refresh()
        logging.getLogger().warning("beside it")
    shown = file.getvalue().split("\r")[-1]
    assert "60%" in shown and "step 6 of 10 [" in shown and "<" in shown
    assert "loss 0.08333, 4 images/s, checkpoint 5" in shown


def test_a_run_shows_its_line_where_it_can_be_seen(tmp_path, monkeypatch):
    lines, own = [], progress.Progress
    monkeypatch.setattr(
        fit, "Progress", lambda steps, start, shown: lines.append(own(steps, start, True, io.StringIO())) or lines[-1]
    )
    run(tmp_path, 3, checkpoint_every=2)
    assert lines[0].bar.n == 3 and lines[0].saved == 3 and "loss" in lines[0].bar.postfix


def test_processes_wait_for_each_other_while_data_is_encoded():
    from comfyui_fluxir.training.engine.processes import make_accelerator

    assert make_accelerator("ddp", "no").init_handler.timeout >= timedelta(hours=12)


def test_the_pixel_loss_compares_decoded_estimates_with_the_decoded_truth():
    clean = torch.randn(2, 16, 8, 8)
    windows = [(slice(None), slice(0, 4), slice(4, 8)), (slice(None), slice(2, 6), slice(0, 4))]
    assert pixel_loss(decode, clean, clean, windows) == 0
    assert pixel_loss(decode, clean + 0.25, clean, windows).item() == pytest.approx(0.25, rel=1e-5)
    estimate = (clean + 0.1).requires_grad_()
    pixel_loss(decode, estimate, clean, windows).backward()
    for gradient, window in zip(estimate.grad, windows):
        assert (gradient[window][:3] != 0).all()
        gradient[window] = 0
        assert not gradient.any()


def test_a_rows_random_numbers_are_its_own():
    whole, part = Draws(1, 5, range(6)), Draws(1, 5, range(2, 4))
    assert torch.equal(whole.normal((3, 2))[2:4], part.normal((3, 2)))
    assert whole.below(1000)[2:4] == part.below(1000)
    assert torch.equal(whole.kept(0.5)[2:4], part.kept(0.5))
    assert not torch.equal(Draws(1, 6, range(6)).normal((3, 2)), Draws(1, 5, range(6)).normal((3, 2)))
    assert Draws(0, 0, range(4000)).kept(0.3).mean().item() == pytest.approx(0.7, abs=0.03)


def test_the_learning_rate_rises_and_falls():
    config = OptimizerConfig(learning_rate=2.0, warmup=10, decay=0.5)
    assert [config.learning_rate_at(step, 100) for step in (0, 4, 9, 40, 75)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0])
    assert (
        OptimizerConfig(learning_rate=2.0).learning_rate_at(0, 100)
        == OptimizerConfig(learning_rate=2.0).learning_rate_at(99, 100)
        == 2.0
    )


def test_the_average_follows_a_short_run_and_smooths_a_long_one():
    weight = torch.nn.Parameter(torch.zeros(1))
    average = MovingAverage([weight], 0.99)
    average.update()
    weight.data.fill_(1)
    followed = []
    for _ in range(1000):
        average.update()
        followed.append(average.values[0].item())
    assert followed[9] > 0.95
    weight.data.fill_(0)
    average.update()
    with average.applied():
        assert weight.item() == pytest.approx(0.99, abs=1e-3)
    assert weight.item() == 0
