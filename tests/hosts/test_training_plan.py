"""`fluxir train --plan` says before a run what it will need; measured runs agree."""

import json

import pytest
import yaml

from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.config import CONFIGS


def printed(capsys, *arguments):
    capsys.readouterr()
    main([str(argument) for argument in arguments])
    said = capsys.readouterr().out
    return json.loads(said[said.index("{") :])


@pytest.fixture
def small(tmp_path):
    """Writes a shipped miniature configuration with micro-batches of 2; its path."""

    def write(recipe, checkpointing):
        values = yaml.safe_load((CONFIGS / f"{recipe}-miniature.yaml").read_text())
        values["base"]["gradient_checkpointing"] = checkpointing
        values["run"].update(batch=2, micro_batch=2)
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.mark.parametrize(("recipe", "checkpointing"), [("fluxir", True), ("fluxir", False), ("ummf", True)])
def test_the_plan_is_within_15_percent_of_a_measured_run(small, capsys, recipe, checkpointing):
    measured = printed(capsys, "bench", "training", "--config", small(recipe, checkpointing), "--recipe", recipe, "--steps", 2)
    assert 0.85 < measured["planned_over_measured"] < 1.15
    assert measured["seconds_per_micro_step"] > 0 and measured["peak_gb"] > 0.05


def test_the_plan_for_a_24_gb_card_fits_it(capsys):
    said = printed(capsys, "train", "fluxir", "--config", CONFIGS / "fluxir-24gb.yaml", "--plan")
    assert said["model"] == "FLUX.1-dev" and said["base_parameters"] == 11_901_408_320
    assert 409e6 < said["trained_parameters"] < 411e6  # Table 2: 387 M and 22.8 M
    parts = ("base_gb", "vae_gb", "adapter_gb", "average_gb", "optimizer_gb", "gradients_gb", "activations_gb")
    assert said["peak_gb"] == pytest.approx(sum(said[part] for part in parts), abs=1e-3)
    assert said["peak_gb"] < 22
    # Forward, again for the backward pass, and backward to the inputs; a token passes 6.45e9 of the base's weights.
    assert said["tflop_per_step"] == pytest.approx(8 * 3 * 2 * 6.45e9 * (1024 + 512) / 1e12, rel=0.05)


def test_a_bench_of_flux_needs_a_gpu(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="needs a GPU; use a configuration of the miniature"):
        main(["bench", "training", "--config", str(CONFIGS / "fluxir.yaml")])
