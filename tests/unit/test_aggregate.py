"""Aggregators and selectors."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.searches.selectors import Argmax, PerLineage, Tournament, resample, take, top
from comfyui_fluxir.fluxir_core.verify.aggregate import mean_z, rank, rank_sum

SCORES = {"a": torch.tensor([[0.1], [0.9], [0.4]]), "b": torch.tensor([[30.0], [10.0], [50.0]])}


def test_rank_sums_do_not_change_under_increasing_maps():
    changed = {"a": SCORES["a"].exp(), "b": SCORES["b"] ** 3 - 7}
    torch.testing.assert_close(rank_sum(changed), rank_sum(SCORES))
    torch.testing.assert_close(rank_sum(SCORES), torch.tensor([[0.5], [1.0], [1.5]]))


def test_tied_ranks_are_shared_and_a_lone_candidate_is_in_the_middle():
    scores = torch.tensor([0.3, -2.0, 0.3, 5.0, float("nan")])
    torch.testing.assert_close(rank(scores), torch.tensor([0.625, 0.25, 0.625, 1.0, 0.0]))
    torch.testing.assert_close(rank(torch.ones(1)), torch.tensor([0.5]))


def test_mean_z_weighs_how_much_better_a_candidate_is():
    scores = {"a": torch.tensor([[0.0], [1.0], [1.1]]), "b": torch.tensor([[0.0], [0.2], [0.0]])}
    assert mean_z(scores).argmax() == 1
    torch.testing.assert_close(mean_z({"a": scores["a"] * 100 + 5}), mean_z({"a": scores["a"]}))


def test_images_are_ranked_apart():
    both = torch.cat([SCORES["a"], 100 + SCORES["b"]], 1)
    torch.testing.assert_close(mean_z({"a": both})[:, :1], mean_z({"a": SCORES["a"]}))
    torch.testing.assert_close(rank(both)[:, 1], rank(SCORES["b"])[:, 0])


@pytest.mark.parametrize("aggregate", [rank_sum, mean_z])
@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_an_unusable_score_is_the_worst(aggregate, bad):
    values = aggregate({"a": torch.tensor([[1.0], [bad], [2.0]])})
    assert values.isfinite().all() and values[1] < values[0] < values[2]


@pytest.mark.parametrize("aggregate", [rank_sum, mean_z])
@pytest.mark.parametrize("constant", [0.0, 3.0, float("nan"), -float("inf")])
def test_a_verifier_that_does_not_tell_candidates_apart_decides_nothing(aggregate, constant):
    with_it = aggregate({**SCORES, "c": torch.full((3, 1), constant)})
    assert torch.equal(with_it.argsort(0), aggregate(SCORES).argsort(0))


def test_ties_keep_the_incumbent():
    values = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    assert Argmax().survivors(values, 1).tolist() == [[0, 2]]
    assert top(values, 2).tolist() == [[0, 0], [1, 2]]
    assert PerLineage().survivors(torch.tensor([[1.0], [1.0], [1.0], [3.0]]), 2).tolist() == [[0], [3]]


def test_a_tournament_prefers_the_better_and_is_reproducible():
    values = torch.arange(5.0)[:, None].repeat(1, 2)
    draws = [Tournament().parents(values, 400, [torch.Generator().manual_seed(s) for s in (0, 1)]) for _ in range(2)]
    assert torch.equal(*draws) and not torch.equal(draws[0][:, 0], draws[0][:, 1])
    counts = torch.bincount(draws[0].flatten(), minlength=5)
    assert counts[4] > 2 * counts[1] > counts[0]


def test_resampling_copies_in_proportion():
    values = torch.tensor([[0.0], [1.0], [-torch.inf], [0.0]])
    generator = [torch.Generator().manual_seed(0)]
    assert torch.equal(resample(torch.zeros(4, 1), 2.0, generator)[:, 0], torch.arange(4))
    index = resample(values.repeat_interleave(1000, 0), 2.0, generator)
    share = torch.bincount(index[:, 0] // 1000, minlength=4) / 4000
    e = torch.tensor(2.0).exp().item()
    assert share.tolist() == pytest.approx([1 / (2 + e), e / (2 + e), 0, 1 / (2 + e)], abs=2e-3)
    assert resample(torch.full((3, 1), -torch.inf), 2.0, generator).max() <= 2
    assert set(resample(values, 0.0, generator)[:, 0].tolist()) <= {0, 1, 3}  # no pressure, but the refused one dies


def test_lineages_have_children_in_turn():
    assert Argmax().parents(torch.zeros(2, 1), 5, None)[:, 0].tolist() == [0, 1, 0, 1, 0]


def test_each_image_takes_for_itself():
    population = torch.arange(6).reshape(3, 2)
    assert take(population, torch.tensor([[2, 0], [0, 1]])).tolist() == [[4, 1], [0, 3]]
