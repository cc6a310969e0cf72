"""The montage of candidates, the chart of a search report, and the finalists with their scores below it."""

import time

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.image import candidates
from comfyui_fluxir.fluxir_core.image.chart import DOT, HELD_OUT, LINE, SearchReportError, search_chart
from comfyui_fluxir.fluxir_core.image.compare import side_by_side
from comfyui_fluxir.fluxir_core.image.montage import contact_sheet, montage
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import search
from comfyui_fluxir.fluxir_core.searches.task import Task
from comfyui_fluxir.training.studies.gaussian_mixture import GaussianMixture
from PIL import Image

MIXTURE = GaussianMixture(16)


def report(name):
    noise = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    task = Task(MIXTURE.velocity, lambda x: x, lambda x: {"a": MIXTURE.reward(x), "b": MIXTURE.held_out(x)})
    return search(task, noise, flux_sigmas(25, 0), PRESETS[name]).report


def ink(sheet, color):
    return (np.asarray(sheet) == color).all(-1)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_chart_with_its_candidates_and_the_chosen(name):
    sheet = search_chart(report(name), 1)
    assert sheet.size == (768, 432) and ink(sheet, DOT).any() and ink(sheet, LINE).any()


def test_better_candidates_stand_higher():
    made = {
        "algorithm": {"type": "Test"},
        "nfe": 10,
        "verifications": 4,
        "finalist_scores": {},
        "winner": [0],
        "log": [{"nfe": 5, "chosen": [[1]], "scores": {"a": [[0.0, 1.0]]}}],
    }
    sheet = search_chart(made)
    rows = np.flatnonzero(ink(sheet, LINE).any(1))
    assert rows.max() < np.flatnonzero(ink(sheet, DOT).any(1)).max()


def test_the_chart_draws_the_verifier_that_was_not_searched_on_and_both_gains():
    task = Task(MIXTURE.velocity, lambda x: x, lambda x: {"a": MIXTURE.reward(x)}, held_out=lambda x: {"b": MIXTURE.held_out(x)})
    noise = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    found = search(task, noise, flux_sigmas(25, 0), PRESETS["quick"]).report
    assert ink(search_chart(found), HELD_OUT)[48:].sum() > 200 and not ink(search_chart(report("quick")), HELD_OUT).any()
    worse = {**found, "held_out": {"b": {**found["held_out"]["b"], "gain": [-1.0, -1.0]}}}
    assert (np.asarray(search_chart(found)) != np.asarray(search_chart(worse)))[:48].any()


def test_the_chart_says_what_could_not_be_judged():
    task = Task(MIXTURE.velocity, lambda x: x, lambda x: {"a": torch.full((len(x),), float("nan"))}, lambda scores: scores["a"])
    found = search(task, torch.randn(2, 16), flux_sigmas(25, 0), PRESETS["quick"]).report
    assert (np.asarray(search_chart(found)) != np.asarray(search_chart({**found, "remarks": []}))).any()


def test_a_search_without_rounds_says_so():
    made = {"algorithm": {"type": "Test"}, "nfe": 10, "verifications": 0, "finalist_scores": {}, "winner": [0], "log": []}
    assert not ink(search_chart(made), DOT).any()


def test_an_image_the_batch_does_not_have_is_refused():
    with pytest.raises(ValueError, match="image 2 of a batch of 2; count from 0"):
        search_chart(report("quick"), 2)


def test_the_montage_frames_the_chosen_and_survives_nan():
    images = torch.full((5, 3, 32, 48), 0.5)
    images[3] = float("nan")
    plain, framed = (montage(images, list("abcde"), chosen, width=300) for chosen in ((), (1,)))
    assert plain.width == 300
    changed = (np.asarray(plain) != np.asarray(framed)).any(-1)
    columns = np.flatnonzero(changed.any(0))
    assert 95 < columns.min() and columns.max() < 205  # the second of three columns


@pytest.mark.parametrize("size", [(2048, 4), (4, 2048), (1, 1), (3000, 1), (1, 3000), (64, 64)])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_a_sheet_is_small_whatever_the_shape_and_the_number_of_the_images(size, count):
    """2048 x 4 pixels once asked for 8 GB."""
    sheet = montage(torch.rand(count, 3, *size), ["label"] * count, (0,), 768)
    assert sheet.width == 768 and sheet.height < 3 * 768


def test_a_tall_image_keeps_its_shape_in_the_middle_of_its_cell():
    sheet = np.asarray(montage(torch.ones(1, 3, 800, 100), [""], (), 208))
    shown = (sheet == 255).all(-1)
    assert abs(shown.sum() - 50 * 400) < 500 and abs(np.flatnonzero(shown.any(0)).mean() - 104) < 2


@pytest.mark.parametrize("group", [1, 2])
def test_a_contact_sheet_of_very_many_images_is_no_wider_than_one_of_many(group):
    groups = [[torch.rand(3, 5, 7)] * group] * 2500
    sheet = contact_sheet(groups, [""] * len(groups))
    assert 6000 < sheet.width <= 8192 and sheet.height < 9000


def test_images_of_a_row_have_a_bounded_width():
    row = side_by_side({"tall": Image.new("RGB", (4, 2048)), "wide": Image.new("RGB", (2048, 4))})
    assert row.height < 2100 and row.width < 17 * 2048


def labels(monkeypatch):
    """Catches what the candidate sheet writes and frames, instead of drawing it."""
    written = []

    def caught(images, texts, chosen, width):
        written.append(([text.split("\n") for text in texts], tuple(chosen)))
        return montage(images, texts, chosen, width)

    monkeypatch.setattr(candidates, "montage", caught)
    return written


def test_the_candidate_sheet_ranks_by_value_and_writes_every_score_that_differs(monkeypatch):
    written = labels(monkeypatch)
    scores = {"a": [1.0, 2.5, None], "b": [-0.0, 0.1234, 7], "alike": [3.0, 3.0, 3.0]}
    sheet = candidates.candidate_sheet(torch.rand(3, 3, 16, 24), [0.5, 0.75, None], scores, winner=1, baseline=0)
    assert sheet.width == candidates.WIDTH
    assert written == [([["2. of 3: 0.5, baseline", "a 1", "b 0"], ["1. of 3: 0.75, winner", "a 2.5", "b 0.123"],
                         ["3. of 3: refused", "a refused", "b 7"]], (1,))]  # fmt: skip


def test_candidates_of_equal_value_share_a_rank(monkeypatch):
    written = labels(monkeypatch)
    candidates.candidate_sheet(torch.rand(3, 3, 8, 8), [1.0, 2.0, 1.0], {}, winner=1)
    assert [lines[0] for lines in written[0][0]] == ["2. of 3: 1", "1. of 3: 2, winner", "2. of 3: 1"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_finalists_stand_below_its_chart_with_the_searchs_own_winner(monkeypatch, name):
    written, found, image = labels(monkeypatch), report(name), 1
    count = max(1, len(found["finalist_values"][image]) if found["finalist_values"] else 1)
    sheet = candidates.search_sheet(found, torch.rand(2 * count, 3, 16, 24), image)
    assert np.array_equal(np.asarray(sheet)[:432], np.asarray(search_chart(found, image))) and sheet.height > 440
    ((texts, chosen),) = written
    assert len(texts) == count
    if found["finalist_values"]:
        winner = found["winner"][image]
        assert chosen == (winner % count,) and "winner" in texts[winner][0]
        assert all("baseline" in lines[0] for lines in texts[-1:]) == (found["baseline_score"] is not None)
        assert f"a {found['finalist_scores']['a'][image][0]:.3g}" in texts[0]


def test_each_image_of_the_batch_has_its_own_finalists():
    found = report("best_of_n")
    count = len(found["finalist_values"][0])
    brightness = torch.arange(2.0).repeat(count)  # candidate by candidate: the first image is black, the second white
    finalists = brightness[:, None, None, None].expand(-1, 3, 32, 48)
    shown = [np.asarray(candidates.search_sheet(found, finalists, image)) for image in (0, 1)]
    middles = [sheet[432:][20, 40:60].mean() for sheet in shown]
    assert middles == [0, 255]


def test_finalists_of_another_search_are_refused():
    found = report("best_of_n")
    count = 2 * len(found["finalist_values"][0])
    with pytest.raises(ValueError, match=f"^{count - 1} final candidates for a report of {count}; decode those of "):
        candidates.search_sheet(found, torch.rand(count - 1, 3, 8, 8))
    with pytest.raises(ValueError, match="image 2 of a batch of 2; count from 0"):
        candidates.search_sheet(found, torch.rand(count, 3, 8, 8), 2)


# Reports that were altered


def parts(found, path=()):
    """The paths of all parts of a report."""
    yield path
    children = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in children:
        yield from parts(value, (*path, key))


def altered(found, path, value):
    if not path:
        return value
    copy = dict(found) if isinstance(found, dict) else list(found)
    if len(path) == 1 and value is DROPPED:
        del copy[path[0]]
    else:
        copy[path[0]] = altered(copy[path[0]], path[1:], value)
    return copy


DROPPED = object()
VALUES = [None, DROPPED, -1, 10**400, 1e308, float("nan"), True, "x" * 10_000, [], {}, [[]], {"a": None}, [10**9] * 3]


def test_an_altered_report_is_drawn_or_refused_in_one_sentence_within_a_second():
    found = report("quick")
    finalists = torch.rand(2 * len(found["finalist_values"][0]), 3, 16, 24)
    places = [path for path in parts(found) if len(path) < 5]
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        path, value = places[random.integers(len(places))], VALUES[random.integers(len(VALUES))]
        if value is DROPPED and not path:
            continue
        changed = altered(found, path, value)
        for shown in (None, finalists):
            started = time.perf_counter()
            try:
                sheet = candidates.draw_report(changed, 1, shown)
            except SearchReportError as error:
                refused += 1
                assert str(error).endswith(".") and "\n" not in str(error)
            else:
                assert sheet.width == candidates.WIDTH
            assert time.perf_counter() - started < 3, (path, value)
    assert 100 < refused < 700
