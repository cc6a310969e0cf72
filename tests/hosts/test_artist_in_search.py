"""The artist as verifier of the TTS Sampler node, in the ComfyUI of this process."""

import csv
import io
import json

import torch

from .search_host import Judge, run

CANDIDATES = 3


def judged_by(ask, inner=Judge):
    from comfyui_fluxir.fluxir_core.verify.artist import ArtistsChoice
    from comfyui_fluxir.fluxir_core.verify.ensemble import Ensemble
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    return LoadedVerifier(ArtistsChoice(Ensemble([inner()]), ask))


def candidates(degraded=None):
    """Best of CANDIDATES, judged by whom `run` is given."""
    from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch

    return {"search": EvolutionarySearch(lineages=CANDIDATES, children=0, rounds=()), "degraded": degraded}


class Taking:
    """Somebody who takes the candidate `number`; keeps what was offered."""

    def __init__(self, number):
        self.number, self.offers = number, []

    def __call__(self, offer):
        self.offers.append(offer)
        return [self.number]


def test_every_candidate_can_be_chosen_and_one_question_is_enough(host, vae):
    found = []
    for number in range(CANDIDATES):
        ask = Taking(number)
        best, _, report = run(host, vae, judge=judged_by(ask), **candidates())
        assert len(ask.offers) == 1 and len(ask.offers[0].images) == CANDIDATES
        assert report["winner"] in ([number], [-1]) and report["remarks"] == []
        found.append(best["samples"])
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[i + 1 :])


def test_the_artist_sees_the_degraded_image_and_overrules_the_check_of_closeness(host, vae):
    _, finalists, _ = run(host, vae, judge=judged_by(Taking(0)), **candidates())
    images = vae.decode(finalists["samples"])  # the baseline comes first, and again at the end
    close_to_baseline = images[:1]
    ask = Taking(1)
    best, _, report = run(host, vae, judge=judged_by(ask), **candidates(close_to_baseline))
    assert report["winner"] == [1] and torch.equal(best["samples"][0], finalists["samples"][1])
    shown = ask.offers[0].degraded
    torch.testing.assert_close(shown.float() / 255, close_to_baseline[0].permute(2, 0, 1).clamp(0, 1), atol=2 / 255, rtol=0)


def test_where_nobody_is_there_the_closeness_is_checked_and_the_report_says_who_decided(host, vae):
    from comfyui_fluxir.fluxir_core.verify.artist import Unanswered

    def absent(_offer):
        raise Unanswered("No browser was there to choose in")

    _, finalists, _ = run(host, vae, judge=judged_by(Taking(0)), **candidates())
    close_to_baseline = vae.decode(finalists["samples"])[:1]
    _, _, report = run(host, vae, judge=judged_by(absent), **candidates(close_to_baseline))
    _, _, alone = run(host, vae, **candidates(close_to_baseline))
    assert report["remarks"] == ["No browser was there to choose in, so ensemble decided."]
    assert report["winner"] == alone["winner"] and report["score"] == alone["score"]


def test_the_image_of_a_batch_that_nobody_chose_for_keeps_its_check(host, vae):
    from comfyui_fluxir.fluxir_core.verify.artist import Unanswered

    class Dark(Judge):
        def __call__(self, images, reference=None):
            return -super().__call__(images)

    def first_only(offer):
        if len(ask.offers) > 1:
            raise Unanswered("Nobody was there")
        return [1]

    class Asked(Taking):
        def __call__(self, offer):
            self.offers.append(offer)
            return first_only(offer)

    batch = {"latent": {"samples": torch.zeros(2, 16, 8, 8)}}
    for inner in (Judge, Dark):
        ask = Asked(1)
        _, finalists, free = run(host, vae, judge=judged_by(ask, inner), **batch, **candidates())
        if free["winner"][1] not in (-1, 0):
            break
    assert free["winner"][1] not in (-1, 0)  # nothing is checked without a degraded image
    close_to_baseline = vae.decode(finalists["samples"])[:2]
    ask = Asked(1)
    _, _, report = run(host, vae, judge=judged_by(ask, inner), **batch, **candidates(close_to_baseline))
    assert report["winner"][0] == 1 and report["winner"][1] in (-1, 0, CANDIDATES)


def test_a_search_keeps_no_image_when_it_is_done_or_fails(host, vae):
    judge = judged_by(Taking(0))
    run(host, vae, judge=judge, **candidates(torch.rand(1, 64, 64, 3)))
    assert judge.ensemble.kept_bytes() == 0

    class Canceled(Exception):
        pass

    def canceled(_offer):
        raise Canceled

    judge = judged_by(canceled)
    try:
        run(host, vae, judge=judge, **candidates())
    except Canceled:
        assert judge.ensemble.kept_bytes() == 0
    else:
        raise AssertionError("the search went on")


def test_score_images_and_select_images_neither_show_a_candidates_number_nor_keep_images(host):
    from comfyui_fluxir.nodes.fluxgen import SelectImages
    from comfyui_fluxir.nodes.verifiers import ScoreImages

    images, judge = torch.rand(3, 64, 64, 3), judged_by(Taking(2))
    _, index, report, *_ = ScoreImages.execute([images], [judge], [1]).result
    assert index == 2 and json.loads(report)["scores"].keys() == {"bright"} and judge.ensemble.kept_bytes() == 0
    table = SelectImages.execute(images, judge, 0.5).result[-1]
    assert "candidate" not in next(csv.reader(io.StringIO(table))) and judge.ensemble.kept_bytes() == 0


def test_timing_a_judge_keeps_no_image(host, vae):
    from comfyui_fluxir.nodes.budget_plan import _seconds_an_image

    judge = judged_by(Taking(0))
    with torch.inference_mode():
        assert "judge_seconds" in _seconds_an_image(vae, judge, torch.zeros(1, 16, 8, 8))
    assert judge.ensemble.kept_bytes() == 0
