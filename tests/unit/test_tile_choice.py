"""Searches that choose for each tile by itself."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.execution.tiles import TileGrid
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost, search
from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch
from comfyui_fluxir.fluxir_core.searches.task import Task
from comfyui_fluxir.fluxir_core.searches.tile_choice import compose_noise

SIGMAS = flux_sigmas(6, 0)
SIDE, TILE = 48, 16


def noise(batch=2, height=SIDE, width=SIDE):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


def bright(images, *_place):
    return {"bright": images.mean((1, 2, 3))}


def task(**changes):
    """A pointwise flow toward 0, whose latents are its images, and a judge that likes brightness."""
    functions = {"velocity": lambda x, t: x * 0.5, "decode": lambda x: x, "score": bright, "score_tile": bright}
    return Task(**(functions | changes))


def found(algorithm, start=None, **changes):
    return search(task(**changes), noise() if start is None else start, SIGMAS, algorithm, seed=5)


def test_composed_noise_keeps_unit_variance_and_one_winners_noise_as_it_is():
    z = torch.randn(3, 400, 2, 40, 40, generator=torch.Generator().manual_seed(1))
    grid = TileGrid(40, 40, TILE)
    shares = torch.zeros(3, 400, 40, 40)
    for index, own in enumerate(grid.tiles):
        own.of(shares[index % 3]).add_(grid.window(own))
    composed = compose_noise(z, shares)
    assert composed.shape == (1, 400, 2, 40, 40) and composed.var((0, 1, 2)).sub(1).abs().max() < 0.25
    assert composed.var().item() == pytest.approx(1, abs=0.01)
    alone = torch.zeros(3, 400, 40, 40)
    alone[1] = 1
    assert torch.equal(compose_noise(z, alone)[0], z[1])


def test_one_tile_over_everything_finds_what_the_whole_image_does():
    whole, tiled = found(StepwiseSearch(3, 1.0)), found(StepwiseSearch(3, 1.0, tile=SIDE))
    assert torch.equal(whole.latents, tiled.latents)


def test_every_tile_has_a_winner_of_its_own_and_the_image_gains_by_it():
    whole, tiled = (found(StepwiseSearch(4, 1.0, tile=tile)) for tile in (0, TILE))
    assert (tiled.latents.mean((1, 2, 3)) > whole.latents.mean((1, 2, 3))).all()
    tiles = len(TileGrid(SIDE, SIDE, TILE).tiles)
    for entry in tiled.report["log"]:
        assert [len(winners) for winners in entry["tiles"]] == [tiles, tiles]
    assert len({winner for entry in tiled.report["log"] for winner in entry["tiles"][0]}) > 1


def test_pixels_of_a_tile_are_latents_times_the_decoders_scale():
    places = []

    def judge(crops, place, full):
        places.append((tuple(crops.shape[2:]), tuple(place), full))
        return bright(crops)

    larger = torch.nn.Upsample(scale_factor=4)
    found(StepwiseSearch(2, 1.0, tile=4 * TILE), decode=larger, score_tile=judge)
    grid = TileGrid(SIDE, SIDE, TILE)
    assert places[: len(grid.tiles)] == [((64, 64), tuple(4 * v for v in own), (192, 192)) for own in grid.tiles]


@pytest.mark.parametrize("baseline_check", [True, False])
@pytest.mark.parametrize("window", [0.5, 1.0])
def test_the_plan_counts_the_call_that_composing_costs(baseline_check, window):
    algorithm = StepwiseSearch(3, window, baseline_check=baseline_check, tile=TILE)
    result, planned = found(algorithm), estimate_cost(algorithm, SIGMAS)
    assert (result.report["nfe"], result.report["verifications"]) == (planned["nfe"], planned["verifications"])
    assert planned["nfe"] > estimate_cost(StepwiseSearch(3, window, baseline_check=baseline_check), SIGMAS)["nfe"]


def test_what_cannot_choose_by_tile_is_refused():
    with pytest.raises(ValueError, match="tiles cannot take the first improvement"):
        StepwiseSearch(3, first_improvement=True, tile=TILE)
    with pytest.raises(ValueError, match="this host cannot judge tiles"):
        found(StepwiseSearch(3, 1.0, tile=TILE), score_tile=None)
