"""A training that is asked to stop, fails or is killed: it saves, says so, and goes on."""

import signal
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from comfyui_fluxir.training.engine.fit import RunConfig
from comfyui_fluxir.training.engine.optimizers import OptimizerConfig
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.engine.stopping import Stopped
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint

from .tiny_training import FlatImages, Killed, assert_equal, decode, objective, run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_run_goes_on(tmp_path, number):
    whole, before = run(tmp_path / "whole"), signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped after 3 of 6 steps; run the same command"):
        run(tmp_path / "stopped", batches=FlatImages(stop=(2, lambda: signal.raise_signal(number))))
    assert RunFolder(tmp_path / "stopped").steps() == [3] and signal.getsignal(number) == before
    assert_equal(run(tmp_path / "stopped"), whole)


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
