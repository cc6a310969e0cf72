"""The training loop: it learns, it resumes bit for bit, it stops when it should, and it loses nothing."""

import gc
import io
import logging
import signal
import weakref
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from comfyui_fluxir.training.engine import fit, progress
from comfyui_fluxir.training.engine.average import MovingAverage
from comfyui_fluxir.training.engine.draws import Draws
from comfyui_fluxir.training.engine.fit import RunConfig
from comfyui_fluxir.training.engine.optimizers import OptimizerConfig
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.engine.stopping import Stopped
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint
from comfyui_fluxir.training.recipes.fluxir import pixel_loss

from .tiny_training import FlatImages, assert_equal, decode, flow_error, objective, run, tiny_host


class Killed(Exception):
    pass


def kill():
    raise Killed


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_goes_on(tmp_path, number):
    whole, before = run(tmp_path / "whole"), signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped after 3 of 6 steps; run the same command"):
        run(tmp_path / "stopped", batches=FlatImages(stop=(2, lambda: signal.raise_signal(number))))
    assert RunFolder(tmp_path / "stopped").steps() == [3] and signal.getsignal(number) == before
    assert_equal(run(tmp_path / "stopped"), whole)


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


def test_a_signal_during_validation_saves_and_stops(tmp_path):
    from comfyui_fluxir.training.engine.fit import fit
    from comfyui_fluxir.training.engine.processes import make_accelerator

    seen = []

    class Held:
        def lacks(self, step):
            return len(seen) < step // 2

        def __call__(self, _model, step, stopping):
            assert not stopping()
            if not seen:
                signal.raise_signal(signal.SIGTERM)
            seen.append((step, stopping()))
            return {}

    settings = RunConfig(4, 8, 8, validate_every=2, checkpoint_every=100)
    with pytest.raises(Stopped, match="stopped after 2 of 4 steps"):
        fit(objective(), FlatImages(), OptimizerConfig(), settings, tmp_path, make_accelerator("ddp", "no"), Held())
    assert seen == [(2, True)] and RunFolder(tmp_path).steps() == [2]


def test_validation_that_was_interrupted_is_made_up_for(tmp_path):
    """Killed between the checkpoint of a step and its validation, even the last one's."""
    from comfyui_fluxir.training.engine.fit import fit
    from comfyui_fluxir.training.engine.processes import make_accelerator

    seen = []

    class Held:
        def __init__(self, stop):
            self.stop = stop

        def lacks(self, step):
            return step not in seen

        def __call__(self, _model, step, _stopping):
            if step == self.stop:
                raise Killed
            seen.append(step)
            return {}

    for stop in (2, 4, None):
        settings = FlatImages(), OptimizerConfig(), RunConfig(4, 8, 8, validate_every=2, checkpoint_every=2), tmp_path
        with pytest.raises(Killed) if stop else nullcontext():
            fit(objective(), *settings, make_accelerator("ddp", "no"), Held(stop))
    assert seen == [2, 4]


def test_validation_ends_at_the_image_at_hand(tmp_path):
    from comfyui_fluxir.training.recipes.validation import Validation

    batches = SimpleNamespace(validation=[0, 1, 2], images=lambda indices: pytest.fail("it went on"))
    assert Validation(batches, decode, tmp_path)(None, 5, lambda: True) == {} and list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint_named(tmp_path):
    goal = objective()

    def spoil():
        goal.adapter.theta_y.data.fill_(float("nan"))

    with pytest.raises(ValueError, match=r"step 4: the loss.*not finite.*last good checkpoint is .*step-00000003.pt; lower"):
        run(tmp_path, goal=goal, batches=FlatImages(stop=(4, spoil)), checkpoint_every=3)
    saved = RunFolder(tmp_path).load()
    assert saved["step"] == 3 and all(value.isfinite().all() for value in saved["adapter"].values())


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
    from comfyui_fluxir.training.engine import fit

    found, module = [], torch.nn.Linear(2, 2)
    monkeypatch.setattr(fit, "whole", found.append)
    monkeypatch.setattr(fit, "is_sharded", lambda _module: is_sharded)
    changed = {"average": MovingAverage(module.parameters(), 0.9)}
    parts = (module, changed, torch.optim.SGD(module.parameters()))
    accelerator = SimpleNamespace(is_main_process=is_main, wait_for_everyone=lambda: None)
    fit._save(RunFolder(tmp_path), 3, *parts, {}, accelerator)
    assert len(found) == gathered and RunFolder(tmp_path).steps() == [3] * is_main


def test_processes_wait_for_each_other_while_data_is_encoded():
    from comfyui_fluxir.training.engine.processes import make_accelerator

    assert make_accelerator("ddp", "no").init_handler.timeout >= timedelta(hours=12)


def test_a_stage_of_the_miniature_does_not_go_on_with_anothers_checkpoint(tmp_path):
    module, path = torch.nn.Linear(2, 2), tmp_path / "a.pt"
    assert list(Checkpoint(path, identity={"model": "one"}).steps(1, module)) == [0]
    assert list(Checkpoint(path, identity={"model": "one"}).steps(2, module)) == [1]
    for other in ({"model": "another"}, None):
        with pytest.raises(ValueError, match="a.pt holds another run's checkpoints .its model differ.; give another --work"):
            list(Checkpoint(path, identity=other).steps(3, module))


def test_a_window_gives_every_step_the_same_items_whatever_came_before():
    from comfyui_fluxir.training.miniature.stream import Window

    made = []
    window = Window(lambda i: made.append(i) or i, size=4, fresh=2)
    assert [window(step) for step in range(3)] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert Window(lambda i: i, size=4, fresh=2)(2) == [4, 5, 6, 7]
    assert len(made) == len(set(made))


def test_the_miniatures_images_and_pairs_are_the_same_every_time():
    from comfyui_fluxir.training.miniature.autoencoder import NARROW, NarrowTAESD
    from comfyui_fluxir.training.miniature.latents import PairStream
    from comfyui_fluxir.training.miniature.stream import ImageStream

    torch.manual_seed(0)
    autoencoder = NarrowTAESD(NARROW).eval()
    first, again = (PairStream(ImageStream(size=64), autoencoder) for _ in range(2))
    for i in (0, 7):
        for one, same in zip(first(i), again(i), strict=True):
            assert torch.equal(one, same)
    assert not torch.equal(first(0).clean, first(7).clean)
    assert not torch.equal(first(0).clean, first(0).degraded)
    plain = PairStream(ImageStream(size=64), autoencoder, degrade=None)(0)
    assert torch.equal(plain.clean, plain.degraded) and torch.equal(plain.clean, first(0).clean)


def test_a_grown_autoencoder_computes_the_same_and_every_new_channel_learns():
    from comfyui_fluxir.training.miniature.autoencoder import NARROW, WIDTHS, NarrowTAESD

    torch.manual_seed(0)
    narrow = NarrowTAESD(NARROW)
    for parameter in narrow.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    wide, images = narrow.grown(WIDTHS), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(wide.encode(images), narrow.encode(images))
        latents = narrow.encode(images)
        torch.testing.assert_close(wide.decode(latents), narrow.decode(latents))
    wide.decode(wide.encode(images)).square().mean().backward()
    assert wide.taesd_encoder[2].weight.grad[:, NARROW[0] :].abs().max() > 0


def test_the_offset_of_the_noise_is_one_for_each_channel_of_a_latent():
    from comfyui_fluxir.fluxir_core.flux.tokens import unpack_latents
    from comfyui_fluxir.training.engine.draws import Draws

    plain, toned = (Draws(0, 0, range(64)).noise((256, 64), tone) for tone in (0.0, 0.5))
    offset = unpack_latents(toned - plain, 32, 32)
    assert torch.allclose(offset, offset.mean((2, 3), keepdim=True).expand_as(offset), atol=1e-5)
    assert 0.45 < offset.mean((2, 3)).std() < 0.55


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


def test_a_finished_stage_of_the_miniature_is_not_run_again(tmp_path):
    module = torch.nn.Linear(2, 2)
    assert list(Checkpoint(tmp_path / "a.pt").steps(3, module)) == [0, 1, 2]
    assert list(Checkpoint(tmp_path / "a.pt").steps(3, module)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_a_stage_of_the_miniature_and_it_goes_on(tmp_path, number):
    module, before, taken = torch.nn.Linear(2, 2), signal.getsignal(number), []
    with pytest.raises(Stopped, match="stopped after 2 of 4 steps; run the same command"):
        for step in Checkpoint(tmp_path / "a.pt").steps(4, module):
            module.weight.data.fill_(step)
            taken.append(step)
            if step == 1:
                signal.raise_signal(number)
    assert taken == [0, 1] and signal.getsignal(number) == before
    resumed = torch.nn.Linear(2, 2)
    for step in Checkpoint(tmp_path / "a.pt").steps(4, resumed):
        assert torch.equal(resumed.weight, module.weight)
        taken.append(step)
    assert taken == [0, 1, 2, 3]


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
