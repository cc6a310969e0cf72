"""`fluxir restore --preset` and `fluxir estimate_cost`, on tiny weights."""

import json

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost
from comfyui_fluxir.fluxir_core.verify.ensemble import DefaultEnsemble
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.diffusers_host.restorer import Restorer
from PIL import Image

from .tiny import write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 72, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "degraded.png")
    return folder


@pytest.mark.parametrize("preset", ["quick", "balanced", "paper", "halving"])
def test_restore_searches_and_reports_what_it_did(folder, preset):
    out, report = folder / f"{preset}.png", folder / f"{preset}.json"
    main(
        [
            "restore",
            str(folder / "degraded.png"),
            str(out),
            "--model",
            str(folder),
            "--preset",
            preset,
            "--steps",
            "7",
            "--seed",
            "3",
            "--json",
            str(report),
        ]
    )
    found, planned = json.loads(report.read_text(encoding="utf-8")), estimate_cost(PRESETS[preset], flux_sigmas(7))
    assert found["preset"] == preset and found["seed"] == 3 and found["nfe_planned"] == planned["nfe"]
    assert planned["nfe_least"] <= found["nfe"] <= planned["nfe"]
    assert {"score", "baseline_score", "winner", "log", "finalist_scores"} <= set(found)
    assert found["score"] is None or found["score"] >= found["baseline_score"]
    with Image.open(out) as image:
        assert image.size == (72, 40)


def test_the_plain_sample_of_a_search_is_restores_own(folder):
    from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch

    restorer, images = Restorer(folder), torch.rand(2, 3, 40, 72, generator=torch.Generator().manual_seed(0))
    found, report = restorer.search(images, [5, 6], EvolutionarySearch(1, 0), DefaultEnsemble(), steps=3)
    assert torch.equal(found, restorer.restore(images, [5, 6], steps=3)) and report["nfe"] == 3


def test_how_many_candidates_share_a_call_does_not_matter(folder):
    restorer, images = Restorer(folder), torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    found = [
        restorer.search(images, [5, 6], PRESETS["best_of_n"], DefaultEnsemble(), steps=2, at_once=size)[0] for size in (1, 4, 15)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0], found[2], atol=1e-4, rtol=1e-4)


def test_plan_prints_the_papers_cost(capsys):
    main(["plan", "--preset", "paper", "--steps", "25"])
    found = json.loads(capsys.readouterr().out)
    assert (found["nfe"], found["verifications"]) == (375, 29)
    main(["plan", "--preset", "quick", "--steps", "25", "--shift", "1.15"])
    assert json.loads(capsys.readouterr().out)["nfe"] == 73
    with pytest.raises(SystemExit, match="--steps is 0; use at least 1"):
        main(["plan", "--steps", "0"])
