"""FLUX-IR's stages by configurations, a few steps each on a tiny FLUX: every file that the next stage and the nodes read."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.lora.few_steps import add_schedules, read_schedules
from comfyui_fluxir.fluxir_core.lora.files import load_lora
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.diffusers_host.restorer import Restorer
from comfyui_fluxir.training.recipes.adapters import open_start
from comfyui_fluxir.training.recipes.few_step_schedules import GRID
from PIL import Image

from .tiny import write_tiny

ADAPTER = "fluxir_adapters/mini-flux-fluxir.safetensors"


def configuration(folder, **sections):
    values = {
        "base": {"folder": str(folder), "precision": "float32"},
        "data": {"images": str(folder / "photos"), "buckets": ["64x64"], "text_tokens": 8, "held_out": 0, "cache": False},
        "optimizer": {"learning_rate": 3e-3, "warmup": 0, "average": 0.5},
        "run": {"steps": 3, "batch": 2, "micro_batch": 1},
        "log": [],
    }
    for name, given in sections.items():
        values[name] = {**values.get(name, {}), **given} if isinstance(given, dict) else given
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def train(stage, folder, work, **sections):
    out = work / "out.safetensors"
    main(["train", stage, "--config", str(configuration(folder, **sections)), "--work", str(work), "--out", str(out)])
    return out


REINFORCE = {"rollouts": 2, "rollout_steps": 3, "points": 1, "refresh": 2}
DISTILL = {"adapter": {"rank": 2}, "recipe": {"lessons": 2}}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The files of a short run: `teacher`, `reinforced` with schedules, `student`; the model `folder` and the `work` folders."""
    folder = tmp_path_factory.mktemp("flux-ir")
    write_tiny(folder)
    shutil.rmtree(folder / "loras", ignore_errors=True)
    (folder / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (72, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    work = {name: folder / "work" / name for name in ("teacher", "reinforce", "distill")}
    tasks = {"data": {"degradation": {"snow": 1, "mixture": 1}}, "start": str(folder / ADAPTER), "recipe": {"pixel_crop": 4}}
    teacher = train("fluxir", folder, work["teacher"], **tasks)
    reinforced = train("reinforce", folder, work["reinforce"], start=str(teacher), recipe=REINFORCE)
    config = configuration(folder, start=str(reinforced), **DISTILL)
    costs = folder / "costs.json"
    main(["schedule", "--config", str(config), "--work", str(work["distill"]), "--batches", "2", "--json", str(costs)])
    student = train("distill", folder, work["distill"], start=str(reinforced), **DISTILL)
    return SimpleNamespace(folder=folder, work=work, teacher=teacher, reinforced=reinforced, student=student, costs=costs)


def weights(path):
    return load_adapter(path).state_dict


def changed(one, other):
    return [name for name, value in weights(one).items() if not torch.equal(value, weights(other)[name])]


def test_every_stage_changes_the_adapter_and_says_how(stages):
    assert changed(stages.folder / ADAPTER, stages.teacher) and changed(stages.teacher, stages.reinforced)
    metadata = load_adapter(stages.reinforced).metadata
    made, before = (json.loads(metadata[name]) for name in ("training_config", "trained_before"))
    assert made["recipe"]["rollouts"] == 2 and before[-1]["data"]["degradation"] == {"mixture": 1.0, "snow": 1.0}
    assert metadata["data"] == "3 images of photos" and metadata["training_steps"] == "3"


def test_a_part_of_what_was_can_be_kept(stages, tmp_path):
    options = {
        "data": {"degradation": {"snow": 1, "mixture": 1}},
        "start": str(stages.folder / ADAPTER),
        "recipe": {"pixel_crop": 4},
    }
    half = weights(train("fluxir", stages.folder, tmp_path, keep=0.5, **options))
    for name, before in weights(stages.folder / ADAPTER).items():
        expected = (before.float() + weights(stages.teacher)[name].float()) / 2
        assert torch.allclose(half[name].float(), expected, atol=1e-2, rtol=1e-2), name
    with pytest.raises(SystemExit, match=r"keep is 0.5; use 0 or more, below 1, and more than 0 with a start only"):
        train("fluxir", stages.folder, tmp_path / "new", keep=0.5, adapter={"rank": 4})


def test_any_verifier_can_be_the_reward_and_several_together(stages, tmp_path):
    reward = {**REINFORCE, "reward": ["niqe", "closeness"]}
    out = train("reinforce", stages.folder, tmp_path, start=str(stages.teacher), recipe=reward, data={"buckets": ["64x64"]})
    assert changed(stages.reinforced, out)
    with pytest.raises(SystemExit, match="the metric beauty is missing"):
        train("reinforce", stages.folder, tmp_path / "none", start=str(stages.teacher), recipe={**REINFORCE, "reward": ["beauty"]})
    assert not (tmp_path / "none" / "out.safetensors").exists()


def test_a_lora_on_the_base_can_be_reinforced_instead(stages, tmp_path):
    out = train("reinforce", stages.folder, tmp_path, start=str(stages.teacher), recipe=REINFORCE, adapter={"rank": 2})
    lora = load_lora(out)
    assert lora.shapes["proj_out"][2] == 2 and all(value.any() for value in lora.state_dict.values())
    with pytest.raises(SystemExit, match="is a LoRA that shows the model no image"):
        train("distill", stages.folder, tmp_path / "student", start=str(out), **DISTILL)
    with pytest.raises(SystemExit, match="keep is 0.5, but a LoRA beside the start begins with nothing"):
        train("reinforce", stages.folder, tmp_path / "kept", start=str(stages.teacher), adapter={"rank": 2}, keep=0.5)


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"recipe": {**REINFORCE, "reward": ["clip_score"]}}, "the reward clip_score needs a prompt"),
        ({"recipe": {**REINFORCE, "reward": ["natural_image"]}}, "the reward natural_image compares images with each other"),
        ({"run": {"sharding": "fsdp"}}, "sharding is 'fsdp', which this recipe does not run under; use 'ddp'"),
    ],
)
def test_what_cannot_be_reinforced_by_is_refused_at_once(stages, tmp_path, sections, why):
    with pytest.raises(SystemExit, match=why):
        train("reinforce", stages.folder, tmp_path, start=str(stages.teacher), **sections)
    assert not (tmp_path / "prompts").exists()


def test_the_result_does_not_replace_what_it_starts_from(stages, tmp_path):
    config = configuration(stages.folder, start=str(stages.teacher), recipe=REINFORCE)
    with pytest.raises(SystemExit, match="--out and start are the same"):
        main(["train", "reinforce", "--config", str(config), "--work", str(tmp_path), "--out", str(stages.teacher)])


def test_a_start_is_told_by_its_weights_whatever_its_file_says_beside(stages, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(stages.reinforced.read_bytes())
    add_schedules(copy, {1: [0.5, 0.0]})
    assert open_start(copy).digest == open_start(stages.reinforced).digest != open_start(stages.teacher).digest


def test_a_ummf_lora_is_reinforced_and_distilled(stages, tmp_path):
    ummf = train("ummf", stages.folder, tmp_path / "ummf", adapter={"rank": 2, "mode": {"attention": "alone"}})
    out = train("reinforce", stages.folder, tmp_path / "reinforce", start=str(ummf), recipe=REINFORCE)
    before, after = load_lora(ummf), load_lora(out)
    assert after.mode == before.mode and any(not torch.equal(v, after.state_dict[k]) for k, v in before.state_dict.items())
    config = configuration(stages.folder, start=str(out), **DISTILL)
    main(["schedule", "--config", str(config), "--work", str(tmp_path / "distill"), "--batches", "1", "--steps", "2"])
    student = train("distill", stages.folder, tmp_path / "distill", start=str(out), **DISTILL)
    assert list(read_schedules(student)) == [2]


def test_a_file_of_another_recipe_is_not_started_from(stages, tmp_path):
    for recipe, start, why in (
        ("ummf", stages.teacher, "is no file of a UMMF LoRA; choose one, or train it by its own recipe"),
        ("reinforce", stages.student, "is a LoRA that shows the model no image; name the FluxIR adapter or the UMMF LoRA"),
        ("reinforce", "none.safetensors", "start: there is no file none.safetensors; train it first, or name another"),
    ):
        with pytest.raises(SystemExit, match=why):
            train(recipe, stages.folder, tmp_path, start=str(start))


def test_another_starts_checkpoints_and_lessons_are_refused(stages, tmp_path):
    with pytest.raises(SystemExit, match="holds another run's checkpoints .its start differ"):
        train("reinforce", stages.folder, stages.work["reinforce"], start=str(stages.folder / ADAPTER), recipe=REINFORCE)
    other = tmp_path / "other.safetensors"
    other.write_bytes(stages.teacher.read_bytes())
    add_schedules(other, read_schedules(stages.reinforced))
    with pytest.raises(SystemExit, match="lessons-optimal holds another run's checkpoints .its start differ"):
        train("distill", stages.folder, stages.work["distill"], start=str(other), **DISTILL)


def test_the_schedules_are_in_both_files(stages):
    schedules = read_schedules(stages.reinforced)
    assert sorted(schedules) == [1, 2, 4] and read_schedules(stages.student) == schedules and read_schedules(stages.teacher) == {}
    costs = json.loads(stages.costs.read_text(encoding="utf-8"))
    assert len(costs["jumps"]) == len(costs["grid"]) == GRID + 1 and costs["schedules"].keys() == {"1", "2", "4"}


def test_the_student_acts_in_the_few_step_restoration_only(stages, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(stages.folder, folder, ignore=shutil.ignore_patterns("work", "photos"))
    (folder / ADAPTER).write_bytes(stages.reinforced.read_bytes())
    (folder / "loras").mkdir()
    (folder / "loras" / "few-steps.safetensors").write_bytes(stages.student.read_bytes())
    restorer, photo = Restorer(folder), torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    slow, few = restorer.restore(photo, [0], sigmas=restorer.schedules[2]), restorer.restore_few_steps(photo, [0], 2)
    assert few.shape == photo.shape and not torch.equal(slow, few)
    assert torch.equal(slow, restorer.restore(photo, [0], sigmas=restorer.schedules[2]))
    with pytest.raises(ValueError, match="no schedule for 3 steps; it has those for 1, 2, 4"):
        restorer.restore_few_steps(photo, [0], 3)
    out, report = tmp_path / "o.png", tmp_path / "o.json"
    command = ["restore", str(stages.folder / "photos" / "0.png"), str(out), "--model", str(folder), "--json", str(report)]
    main([*command, "--few-steps", "1"])
    assert out.exists() and json.loads(report.read_text(encoding="utf-8"))["nfe"] == 1
    for options, message in (
        (["--few-steps", "3"], "no schedule for 3 steps"),
        (["--few-steps", "2", "--preset", "quick"], "--few-steps goes with neither --preset nor --tile"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*command, *options])


def test_the_control_learns_equal_steps(stages, tmp_path):
    uniform = {**DISTILL, "recipe": {"lessons": 2, "schedules": "uniform"}}
    out = train("distill", stages.folder, tmp_path, start=str(stages.reinforced), **uniform)
    assert read_schedules(out) == {1: [1, 0], 2: [1, 0.5, 0], 4: [1, 0.75, 0.5, 0.25, 0]}


def test_a_start_without_schedules_is_not_distilled(stages, tmp_path):
    with pytest.raises(SystemExit, match="has no schedules; run `fluxir schedule` with the same configuration first"):
        train("distill", stages.folder, tmp_path, start=str(stages.teacher), **DISTILL)


@pytest.mark.parametrize("schedules", [{2: [0.9, 0.0]}, {1: [0.5, 0.1]}, {2: [0.3, 0.6, 0.0]}, {1: [1.5, 0.0]}])
def test_a_schedule_that_does_not_fall_to_0_is_refused(stages, tmp_path, schedules):
    path = tmp_path / "a.safetensors"
    path.write_bytes(stages.student.read_bytes())
    add_schedules(path, schedules)
    with pytest.raises(ValueError, match="^a.safetensors has a schedule for .* does not fall from 1 or less to 0"):
        read_schedules(path)
