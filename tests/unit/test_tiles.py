"""Latents in tiles, and how visible their borders are."""

import logging

import pytest
import torch
from comfyui_fluxir.fluxir_core.execution.tiles import SMALLEST, TiledRun, TileGrid, map_tiles
from comfyui_fluxir.fluxir_core.image.seams import seam_score
from comfyui_fluxir.training.studies.bench_tiles import training_images

SIZES = [(64, 64), (65, 97), (33, 264), (1, 70), (5, 3), (32, 32), (300, 31)]


def latents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_the_windows_of_a_grid_sum_to_one_everywhere(height, width, overlap):
    grid = TileGrid(height, width, 32, overlap)
    ones = torch.ones(1, height, width)
    torch.testing.assert_close(grid.blend([(tile, tile.of(ones)) for tile in grid.tiles], ones), ones)


@pytest.mark.parametrize("length", [33, 50, 65, 97, 264, 1001])
@pytest.mark.parametrize("overlap", [0, 0.125, 0.25, 0.5])
def test_overlaps_are_equal_up_to_a_patch_and_at_least_as_asked(length, overlap):
    tiles = TileGrid(8, length, 32, overlap).tiles
    assert tiles[0].left == 0 and tiles[-1].left + tiles[-1].width == length
    overlaps = [first.left + first.width - second.left for first, second in zip(tiles, tiles[1:])]
    assert min(overlaps) >= 32 * overlap - 2 and max(overlaps) - min(overlaps) <= 3
    assert all(tile.left % 2 == 0 for tile in tiles[:-1])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_tiled_pointwise_model_is_the_untiled_one(height, width):
    x = latents(2, 16, height, width)

    def model(crops, tiles):
        assert [crop.shape[2:] for crop in crops] == [tile[:2] for tile in tiles]
        return [torch.tanh(crop) for crop in crops]

    torch.testing.assert_close(map_tiles(model, x, TiledRun(32, 3)), torch.tanh(x))


def test_a_side_that_fits_is_one_tile_of_its_own_length():
    assert TileGrid(31, 5, 32).tiles == [(31, 5, 0, 0)]
    assert {tile[:2] for tile in TileGrid(9, 72, 32).tiles} == {(9, 32)}


def test_what_a_tile_says_fades_toward_its_borders():
    grid = TileGrid(32, 56, 32, 0.25)
    window = grid.window(grid.tiles[0])[0]
    assert (window[:24] == 1).all() and window[-1] < 0.01 and (window[24:].diff() < 0).all()


@pytest.mark.parametrize(("tile", "overlap", "message"), [(1, 0.25, "tile is 1 latent"), (32, 0.6, "overlap is 0.6")])
def test_a_grid_that_makes_no_sense_is_refused(tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        TileGrid(64, 64, tile, overlap)


class Memory:
    """A pointwise model that runs out of memory above `most` latent pixels in one call."""

    def __init__(self, most):
        self.most, self.calls = most, []

    def __call__(self, crops, tiles):
        size = sum(crop[0, 0].numel() for crop in crops)
        if size > self.most:
            raise torch.cuda.OutOfMemoryError(f"{size} are too many")
        self.calls.append(len(crops))
        return [crop.cos() for crop in crops]


def test_out_of_memory_halves_the_tiles_at_once_and_then_the_tile(caplog):
    x, run, model = latents(1, 4, 200, 300), TiledRun(128, 4), Memory(128 * 128)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(map_tiles(model, x, run), x.cos())
        assert (run.tile, run.at_once) == (128, 1) and set(model.calls) == {1}
        model.most = 64 * 64
        torch.testing.assert_close(map_tiles(model, x, run), x.cos())
    assert (run.tile, run.at_once) == (64, 1)
    assert [record.message.split("; ")[1] for record in caplog.records] == [
        "going on with 2 at once of at most 128 latent pixels a side",
        "going on with 1 at once of at most 128 latent pixels a side",
        "going on with 1 at once of at most 64 latent pixels a side",
    ]


def test_memory_for_less_than_the_smallest_tile_is_an_error():
    run = TiledRun(128, 4)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        map_tiles(Memory(0), latents(1, 4, 200, 300), run)
    assert SMALLEST <= run.tile < 2 * SMALLEST


# How visible borders are


@pytest.fixture(scope="module")
def photos():
    return list(training_images(4, seed=3))


BORDERS = (64, 128, 192)


def mean_score(images):
    return sum(seam_score(image, BORDERS, BORDERS) for image in images) / len(images)


def planted(photo, step, ramp=0):
    """`photo` with every second tile brighter by `step`, from one pixel to the next or over a `ramp` of pixels."""
    checks = torch.zeros(1, 1, 4, 4)
    checks[..., ::2, ::2] = checks[..., 1::2, 1::2] = step
    checks = torch.nn.functional.interpolate(checks, size=256)
    if ramp:
        kernel = torch.hann_window(ramp + 1, periodic=False)
        kernel = (kernel[:, None] * kernel)[None, None]
        padded = torch.nn.functional.pad(checks, (ramp // 2,) * 4, mode="replicate")
        checks = torch.nn.functional.conv2d(padded, kernel / kernel.sum())
    return photo + checks[0]


def test_photos_without_seams_score_one(photos):
    assert mean_score(photos) == pytest.approx(1, abs=0.15)


def test_the_score_grows_with_a_planted_seam(photos):
    scores = [mean_score([planted(photo, step) for photo in photos]) for step in (0, 0.02, 0.05, 0.1, 0.2, 0.5)]
    assert scores == sorted(scores) and scores[-1] > 1.5 and scores[2] > scores[0] + 0.1


def test_a_difference_that_is_blended_over_an_overlap_is_no_seam(photos):
    hard, soft, none = (mean_score([planted(photo, *step) for photo in photos]) for step in ((0.1,), (0.1, 64), (0,)))
    assert abs(soft - none) < 0.05 < hard - none


def test_one_orientation_is_measured_alone(photos):
    def means(images):
        ways = ([seam_score(image, **{way: [128]}) for image in images] for way in ("columns", "rows"))
        return [sum(scores) / len(scores) for scores in ways]

    half = (torch.arange(256) >= 128).float()
    (columns, rows), (columns_after, rows_after) = means(photos), means([photo + 0.2 * half for photo in photos])
    assert columns_after > columns + 0.3 and rows_after == pytest.approx(rows, abs=0.01)


def test_a_gradient_is_no_seam():
    ramp = torch.linspace(0, 1, 256).expand(3, 4096, 256)
    assert seam_score(ramp + 0.01 * latents(3, 4096, 256), columns=[128]) == pytest.approx(1, abs=0.1)


def test_borders_without_room_are_refused(photos):
    with pytest.raises(ValueError, match="no border of rows .* can be measured in an image of 256x256"):
        seam_score(photos[0], rows=[0], columns=[256])
