"""The montage of candidates and the chart of a search report."""

import numpy as np
import pytest
import torch

from comfyui_fluxir.fluxir_core.flow import PRESETS, Task, flux_sigmas, search
from comfyui_fluxir.fluxir_core.image import montage, search_chart
from comfyui_fluxir.fluxir_core.image.chart import DOT, LINE
from comfyui_fluxir.training.mixture import GaussianMixture

MIXTURE = GaussianMixture(16)


def report(name):
    noise = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    task = Task(MIXTURE.velocity, lambda x: x, lambda x: {"a": MIXTURE.reward(x), "b": MIXTURE.held_out(x)})
    return search(task, noise, flux_sigmas(25, 0), PRESETS[name]).report


def ink(sheet, colour):
    return (np.asarray(sheet) == colour).all(-1)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_chart_with_its_candidates_and_the_chosen(name):
    sheet = search_chart(report(name), 1)
    assert sheet.size == (768, 432) and ink(sheet, DOT).any() and ink(sheet, LINE).any()


def test_better_candidates_stand_higher():
    made = {"schedule": {"type": "Test"}, "nfe": 10, "verifications": 4, "finalist_scores": {}, "winner": [0],
            "log": [{"nfe": 5, "chosen": [[1]], "scores": {"a": [[0.0, 1.0]]}}]}  # fmt: skip
    sheet = search_chart(made)
    rows = np.flatnonzero(ink(sheet, LINE).any(1))
    assert rows.max() < np.flatnonzero(ink(sheet, DOT).any(1)).max()


def test_a_search_without_contests_says_so():
    made = {"schedule": {"type": "Test"}, "nfe": 10, "verifications": 0, "finalist_scores": {}, "winner": [0], "log": []}
    assert not ink(search_chart(made), DOT).any()


def test_a_picture_the_batch_does_not_have_is_refused():
    with pytest.raises(ValueError, match="picture 2 of a batch of 2; count from 0"):
        search_chart(report("fast"), 2)


def test_the_montage_frames_the_chosen_and_survives_nan():
    pictures = torch.full((5, 3, 32, 48), 0.5)
    pictures[3] = float("nan")
    plain, framed = (montage(pictures, list("abcde"), chosen, width=300) for chosen in ((), (1,)))
    assert plain.width == 300
    changed = (np.asarray(plain) != np.asarray(framed)).any(-1)
    columns = np.flatnonzero(changed.any(0))
    assert 95 < columns.min() and columns.max() < 205  # the second of three columns
