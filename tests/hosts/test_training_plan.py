"""`fluxir train --plan` says before a run what it will need; measured runs agree."""

import json
from dataclasses import replace

import pytest
import yaml
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.recipes.config import CONFIGS, FluxIRConfig
from comfyui_fluxir.training.recipes.memory_plan import plan_memory


def printed(capsys, *arguments):
    capsys.readouterr()
    main([str(argument) for argument in arguments])
    said = capsys.readouterr().out
    return json.loads(said[said.index("{") :])


@pytest.fixture
def small(tmp_path):
    """Writes a shipped miniature configuration with micro-batches of 2; its path."""

    def write(recipe, checkpointing, batch=2):
        values = yaml.safe_load((CONFIGS / f"{recipe}-miniature.yaml").read_text(encoding="utf-8"))
        values["base"].update(folder="miniature", gradient_checkpointing=checkpointing)
        values.pop("start", None)  # the bundled adapter is
        values["run"].update(batch=batch, micro_batch=2)
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("recipe", "checkpointing", "batch"),
    [
        ("fluxir", True, 2),
        ("fluxir", True, 4),
        ("fluxir", False, 2),
        ("ummf", True, 2),
        ("reinforce", True, 2),
    ],
)
def test_the_plan_is_within_15_percent_of_a_measured_run(small, capsys, recipe, checkpointing, batch):
    path = small(recipe, checkpointing, batch)
    measured = printed(capsys, "bench", "training", "--config", path, "--recipe", recipe, "--steps", 2)
    assert 0.85 < measured["planned_over_measured"] < 1.15
    assert measured["seconds_per_micro_step"] > 0 and measured["peak_gb"] > 0.05


def test_the_plan_of_a_students_chain_of_calls_is_no_lower_than_a_measured_run(small, capsys):
    """Tensors without data free the calls that are run again later than real ones: the plan is on the safe side."""
    measured = printed(capsys, "bench", "training", "--config", small("distill", True), "--recipe", "distill", "--steps", 2)
    assert 0.95 < measured["planned_over_measured"] < 1.7


def test_the_plan_for_a_24_gb_card_fits_it(capsys):
    said = printed(capsys, "train", "fluxir", "--config", CONFIGS / "fluxir-24gb.yaml", "--plan")
    assert said["model"] == "FLUX.1-dev" and said["base_parameters"] == 11_901_408_320
    assert 409e6 < said["trained_parameters"] < 411e6  # Table 2: 387 M and 22.8 M
    parts = ("base_gb", "vae_gb", "adapter_gb", "average_gb", "optimizer_gb", "gradients_gb", "activations_gb")
    assert said["peak_gb"] == pytest.approx(sum(said[part] for part in parts), abs=1e-3)
    assert said["peak_gb"] < 22
    # Forward, again for the backward pass, and backward to the inputs; a token passes 6.45e9 of the base's weights. Attention
    # has two products of N x N x 3072 in each of 57 blocks, and five on the way back.
    tokens = 1024 + 512
    weights, attention = 3 * 2 * 6.45e9 * tokens, 57 * (2 + 2 + 5) * 2 * tokens**2 * 3072
    decoded = said["tflop_per_step"] - 8 * (weights + attention) / 1e12  # for the pixel loss, on 256 pixels a side
    assert 0.03 < decoded / said["tflop_per_step"] < 0.05


def test_gradients_that_accumulate_are_there_throughout(small):
    config = FluxIRConfig.load(small("fluxir", True))
    several = replace(config, run=replace(config.run, batch=4))
    at_once, accumulated = plan_memory(config), plan_memory(several)
    assert accumulated["gradients_gb"] == at_once["gradients_gb"] > 0
    # At the peak of a single pass, the pixel loss, no gradient is there yet.
    assert accumulated["peak_gb"] == pytest.approx(at_once["peak_gb"] + at_once["gradients_gb"], rel=0.02)
    assert several.run.batch / several.run.micro_batch == 2
    assert accumulated["tflop_per_step"] == pytest.approx(2 * at_once["tflop_per_step"], abs=0.002)


def test_a_bench_of_flux_needs_a_gpu(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="needs a GPU; use a configuration of the miniature"):
        main(["bench", "training", "--config", str(CONFIGS / "fluxir.yaml")])
