"""What a search did, in one sentence."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.image.montage import in_words, search_montage
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import search
from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch
from comfyui_fluxir.fluxir_core.searches.summary import say_time, summarize
from comfyui_fluxir.fluxir_core.searches.task import Task


def report(reward, algorithm=PRESETS["quick"], steps=12, **functions):
    """A search among samples of a constant velocity field, judged by `reward` of (rows, 4)."""
    task = Task(lambda x, t: x * 0.5, lambda x: x, lambda x: {"judge": reward(x)}, **functions)
    noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    return search(task, noise, flux_sigmas(steps, 1.15), algorithm).report


def test_a_gain_is_said_by_verifier_with_its_sign_and_its_cost():
    found = report(lambda x: x.sum(1), PRESETS["best_of_n"])
    said = summarize(found)
    assert said.startswith("Better than the normal result (judge +") and f"{found['nfe']} model calls" in said


def test_a_score_that_all_share_is_no_gain():
    found = report(lambda x: x.sum(1), PRESETS["best_of_n"])
    veto = [[0.0 for _ in own] for own in found["finalist_scores"]["judge"]]
    said = summarize({**found, "finalist_scores": {**found["finalist_scores"], "veto_noise": veto}})
    assert said == summarize(found) and "veto" not in said


def test_it_is_said_that_nothing_was_gained():
    assert summarize(report(lambda x: torch.zeros(len(x)))).startswith("The normal result was the best: nothing was gained")


def test_it_is_said_that_the_steps_are_too_few():
    said = summarize(report(lambda x: x.sum(1), StepwiseSearch(4, 0.1)))
    assert said.startswith("Nothing was searched: 12 steps are too few") and said.endswith("Use more steps, or a larger window.")


def test_the_gain_by_a_verifier_that_was_not_searched_on_is_said_beside_it():
    found = report(lambda x: x.sum(1), PRESETS["best_of_n"], held_out=lambda x: {"other": -x.sum(1)})
    gain = found["held_out"]["other"]["gain"][0]
    assert gain < 0 and f", other, which was not searched on, {gain:+.2g})" in summarize(found)


def test_only_an_image_whose_candidates_were_refused_is_said_to_have_none():
    def combine(scores):
        return torch.stack([scores["judge"][:, 0], torch.full_like(scores["judge"][:, 1], -torch.inf)], 1)

    found = report(lambda x: x.sum(1), PRESETS["best_of_n"], combine=combine)
    assert summarize(found).startswith("Better than") and "refused every candidate" in summarize(found, 1)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (29.6, "30 s"), (600, "10 min"), (4800, "80 min"), (7300, "2 h 2 min")]
)
def test_a_time_is_said_as_people_say_it(seconds, said):
    assert say_time(seconds) == said


def test_the_best_candidate_is_shown_large_and_where_they_differ_below():
    images = torch.zeros(4, 3, 64, 96)
    images[2, 1] = 1
    sheet = search_montage(images, [0.0, 1.0, 3.0, 2.0], [1, 2], "best so far")
    assert sheet.width == 512 and sheet.getpixel((256, 100)) == (0, 255, 0)
    assert sheet.height > 512 * 64 / 96 + 512 / 2


def test_the_best_candidate_is_told_from_the_others_in_words():
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.avg_pool2d(photo, 3, 1, 1)
    candidates = torch.cat([photo, soft])
    assert in_words(candidates, 0, photo) == "sharper, closer to your photo"
    assert in_words(candidates, 1, photo) == "softer, less close to your photo"
    assert in_words(torch.cat([soft, soft]), 1, photo) == "as sharp, as close to your photo"
    assert in_words(candidates, 0) == "sharper"
    large = torch.nn.functional.interpolate(photo, scale_factor=2, mode="bicubic", antialias=True, align_corners=False)
    assert in_words(candidates, 0, large) == "sharper, closer to your photo"
