"""FLUX-IR's stages from the command line, a few steps each: every file that the next stage and the nodes read."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.lora.few_steps import add_schedules, read_schedules
from comfyui_fluxir.fluxir_core.lora.files import load_lora
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.commands import train_stages
from comfyui_fluxir.training.diffusers_host.model_folder import model_folder
from comfyui_fluxir.training.diffusers_host.restorer import Restorer
from comfyui_fluxir.training.miniature.stages import QUICK, load
from comfyui_fluxir.training.recipes.few_step_schedules import GRID

ADAPTER, STUDENT = "fluxir_adapters/mini-flux-fluxir.safetensors", "loras/mini-flux-few-steps.safetensors"


def train(recipe, **options):
    train_stages.run(SimpleNamespace(recipe=recipe, quick=True, **options))


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The folders of a quick run: `work`, and the model folders `teacher` and `reinforced`."""
    folder = tmp_path_factory.mktemp("flux-ir")
    work, teacher, reinforced = (folder / name for name in ("work", "teacher", "reinforced"))
    train("tasks", model="miniature", work=work, out=teacher)
    train("reinforce", model=teacher, work=work, out=reinforced, reward="closeness")
    main(["schedule", "--model", str(reinforced), "--json", str(folder / "costs.json"), "--quick"])
    train("distill", model=reinforced, work=work, uniform=False)
    return SimpleNamespace(folder=folder, work=work, teacher=teacher, reinforced=reinforced)


def changed(one, other):
    first, second = (load_adapter(folder / ADAPTER).state_dict for folder in (one, other))
    return [name for name in first if not torch.equal(first[name], second[name])]


def test_every_stage_changes_the_adapter_and_says_how(stages):
    bundled = model_folder("miniature")
    assert changed(bundled, stages.teacher) and changed(stages.teacher, stages.reinforced)
    metadata = load_adapter(stages.reinforced / ADAPTER).metadata
    made = json.loads(metadata["training_config"])
    assert {"tasks", "reinforce"} <= set(made) and "dead-leaves scenes" in metadata["data"]
    assert metadata["license"] == "Apache-2.0"


def test_any_metric_can_be_the_reward(stages, tmp_path):
    train("reinforce", model=stages.teacher, work=stages.work, out=tmp_path, reward="niqe")
    made = json.loads(load_adapter(tmp_path / ADAPTER).metadata["training_config"])
    assert made["reinforce"]["reward"] == "niqe" and changed(stages.reinforced, tmp_path)
    with pytest.raises(ValueError, match="the metric beauty is missing"):
        train("reinforce", model=stages.teacher, work=stages.work, out=tmp_path / "none", reward="beauty")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("recipe", ["tasks", "reinforce"])
def test_another_models_checkpoints_are_refused(stages, tmp_path, recipe):
    options = {"reward": "closeness"} if recipe == "reinforce" else {}
    with pytest.raises(ValueError, match="holds another run's checkpoints .its model differ.; give another --work"):
        train(recipe, model=stages.reinforced, work=stages.work, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_lessons_and_students_of_another_model_are_refused(stages, tmp_path):
    from comfyui_fluxir.fluxir_core.adapter.checkpoint import save_adapter

    shutil.copytree(stages.reinforced, tmp_path / "changed")
    loaded = load_adapter(stages.reinforced / ADAPTER)
    metadata = {name: value for name, value in loaded.metadata.items() if name not in ("config", "schedules")}
    changed = load(stages.reinforced, None, QUICK, 2).host.adapter
    with torch.no_grad():
        changed.theta_y.add_(1)
    save_adapter(tmp_path / "changed" / ADAPTER, changed.bfloat16(), metadata)
    add_schedules(tmp_path / "changed" / ADAPTER, read_schedules(stages.reinforced / ADAPTER))
    with pytest.raises(ValueError, match="lessons-optimal holds another run's checkpoints .its model differ"):
        train("distill", model=tmp_path / "changed", work=stages.work, uniform=False)
    (stages.work / "lessons-optimal").rename(tmp_path / "lessons")
    with pytest.raises(ValueError, match="distill-optimal holds another run's checkpoints .its model differ"):
        train("distill", model=tmp_path / "changed", work=stages.work, uniform=False)
    shutil.rmtree(stages.work / "lessons-optimal")
    (tmp_path / "lessons").rename(stages.work / "lessons-optimal")


def test_the_schedules_are_in_both_files(stages):
    schedules = read_schedules(stages.reinforced / ADAPTER)
    assert sorted(schedules) == [1, 2, 4] and read_schedules(stages.reinforced / STUDENT) == schedules
    assert read_schedules(stages.teacher / ADAPTER) == {}
    costs = json.loads((stages.folder / "costs.json").read_text(encoding="utf-8"))
    assert len(costs["jumps"]) == len(costs["grid"]) == GRID + 1 and costs["schedules"].keys() == {"1", "2", "4"}


def test_the_student_is_small_and_acts_in_the_fast_restoration_only(stages):
    assert (stages.reinforced / STUDENT).stat().st_size < 0.5e6
    lora = load_lora(stages.reinforced / STUDENT)
    assert all(values.any() for name, values in lora.state_dict.items())
    restorer, photo = Restorer(stages.reinforced), torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    slow = restorer.restore(photo, [0], sigmas=restorer.schedules[2])
    fast = restorer.restore_few_steps(photo, [0], 2)
    assert fast.shape == photo.shape and not torch.equal(slow, fast)
    assert torch.equal(slow, restorer.restore(photo, [0], sigmas=restorer.schedules[2]))
    with pytest.raises(ValueError, match="no schedule for 3 steps; it has those for 1, 2, 4"):
        restorer.restore_few_steps(photo, [0], 3)


def test_the_control_learns_equal_steps_in_the_work_folder(stages):
    train("distill", model=stages.reinforced, work=stages.work, uniform=True)
    assert read_schedules(stages.work / "uniform" / STUDENT) == {1: [1, 0], 2: [1, 0.5, 0], 4: [1, 0.75, 0.5, 0.25, 0]}


def test_a_model_without_schedules_is_not_distilled(stages):
    with pytest.raises(ValueError, match="has no schedules; run `fluxir schedule` first"):
        train("distill", model=stages.teacher, work=stages.work, uniform=False)


@pytest.mark.parametrize("schedules", [{2: [0.9, 0.0]}, {1: [0.5, 0.1]}, {2: [0.3, 0.6, 0.0]}, {1: [1.5, 0.0]}])
def test_a_schedule_that_does_not_fall_to_0_is_refused(stages, tmp_path, schedules):
    path = tmp_path / "a.safetensors"
    path.write_bytes((stages.reinforced / STUDENT).read_bytes())
    add_schedules(path, schedules)
    with pytest.raises(ValueError, match="^a.safetensors has a schedule for .* does not fall from 1 or less to 0"):
        read_schedules(path)


def test_few_steps_from_the_command_line(stages, tmp_path):
    from comfyui_fluxir.training.miniature import FOLDER as MINIATURE

    photo = MINIATURE.parents[1] / "samples" / "fluxir_dogs_noisy.jpg"
    out, report = tmp_path / "o.png", tmp_path / "o.json"
    command = ["restore", str(photo), str(out), "--model", str(stages.reinforced), "--json", str(report)]
    main([*command, "--few-steps", "1"])
    assert out.exists() and json.loads(report.read_text(encoding="utf-8"))["nfe"] == 1
    for options, message in (
        (["--few-steps", "3"], "no schedule for 3 steps"),
        (["--few-steps", "2", "--preset", "quick"], "--few-steps goes with neither --preset nor --tile"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*command, *options])
