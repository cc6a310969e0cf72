"""Drift: measured on photos that were moved by a known amount, and moved back."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.presets import degrade_named
from comfyui_fluxir.fluxir_core.image.align import Drift, measure_drift, move_back
from comfyui_fluxir.fluxir_core.verify.drift import Drift as DriftScore
from comfyui_fluxir.training.miniature.scenes import load_photo
from torch.nn import functional as F


def photo(name, height=192, width=256):
    image = torch.from_numpy(load_photo(name).copy()).permute(2, 0, 1).float() / 255
    return F.interpolate(image[None], (height, width), mode="area")[0]


@pytest.fixture(scope="module", params=["coffee", "astronaut"])
def scene(request):
    return photo(request.param)


def degrade(image, kind):
    return degrade_named(image, kind, 1)


def moved(image, drift):
    """`image` (3, H, W) drawn from its own mathematics: a point at p lands at scale p + shift."""
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    y, x = (y - drift.down) / drift.scale, (x - drift.right) / drift.scale
    grid = torch.stack([2 * x / width, 2 * y / height], -1)[None]
    return F.grid_sample(image[None], grid, mode="bicubic", padding_mode="reflection", align_corners=False)[0].clamp(0, 1)


DRIFTS = [Drift(0.3, -0.4), Drift(4.0, -7.0), Drift(-2.6, 3.3, 1.02), Drift(0.0, 0.0, 0.97), Drift(20.0, 12.0)]


@pytest.mark.parametrize("drift", DRIFTS, ids=str)
def test_a_known_drift_is_measured_to_a_tenth_of_a_pixel(scene, drift):
    found = measure_drift(moved(scene, drift), scene)
    assert found.down == pytest.approx(drift.down, abs=0.1) and found.right == pytest.approx(drift.right, abs=0.1)
    assert found.scale == pytest.approx(drift.scale, abs=0.001)


@pytest.mark.parametrize("kind", ["noise", "jpeg", "low_light", "sr4", "strong"])
def test_it_is_measured_against_a_degraded_input(scene, kind):
    drift = Drift(-2.6, 3.3, 1.01)
    found = measure_drift(moved(scene, drift), degrade(scene, kind))
    assert found.down == pytest.approx(drift.down, abs=0.4) and found.right == pytest.approx(drift.right, abs=0.4)
    assert found.scale == pytest.approx(drift.scale, abs=0.004)


@pytest.mark.parametrize("kind", ["noise", "jpeg", "low_light", "sr4"])
def test_an_image_that_has_not_moved_is_not_said_to_have(scene, kind):
    assert measure_drift(scene, degrade(scene, kind)).pixels(*scene.shape[1:]) < 0.4
    assert measure_drift(scene, scene).pixels(*scene.shape[1:]) < 0.02


def test_an_input_of_another_resolution_is_brought_to_the_images(scene):
    small = F.interpolate(scene[None], scale_factor=0.25, mode="area")[0]
    drift = Drift(3.0, -5.0)
    found = measure_drift(moved(scene, drift), small)
    assert found.down == pytest.approx(3.0, abs=0.4) and found.right == pytest.approx(-5.0, abs=0.4)


def test_moving_back_undoes_it(scene):
    drift = Drift(2.5, -3.5, 1.02)
    back = move_back(moved(scene, drift)[None], drift)[0]
    inner = (slice(None), slice(16, -16), slice(16, -16))
    assert (back - scene)[inner].square().mean() < 0.1 * (moved(scene, drift) - scene)[inner].square().mean()
    assert torch.equal(move_back(scene[None], Drift()), scene[None])


def test_a_shift_alone_is_one_without_a_scale(scene):
    found = measure_drift(moved(scene, Drift(1.0, 2.0, 1.02)), scene, scale=False)
    assert found.scale == 1.0 and found.down == pytest.approx(1.0, abs=0.7)


def test_images_of_different_scenes_do_not_drift_far():
    """Nothing in one says where the other has moved: what is found must at least bring them nearer."""
    one, other = photo("coffee"), photo("astronaut")
    found = measure_drift(one, other)
    back = move_back(one[None], found)[0]
    assert found == Drift() or (back - other).abs().mean() < 1.2 * (one - other).abs().mean()


def test_an_even_image_has_no_drift():
    assert measure_drift(torch.full((3, 64, 64), 0.5), torch.full((3, 64, 64), 0.5)) == Drift()


def test_a_drift_in_pixels_is_the_root_mean_square_of_all_points():
    drift, height, width = Drift(3.0, -4.0, 1.1), 60, 80
    y, x = torch.meshgrid(torch.arange(height) + 0.5 - height / 2, torch.arange(width) + 0.5 - width / 2, indexing="ij")
    distance = (0.1 * y + 3).square() + (0.1 * x - 4).square()
    assert drift.pixels(height, width) == pytest.approx(distance.mean().sqrt().item(), rel=1e-3)


def test_a_tiny_image_is_refused():
    with pytest.raises(ValueError, match="16 x 64 pixels; give at least 32 a side"):
        measure_drift(torch.zeros(3, 64, 16), torch.zeros(3, 64, 16))


def test_the_score_prefers_what_has_not_moved(scene):
    images = torch.stack([moved(scene, Drift(5.0, 0.0)), scene, moved(scene, Drift(1.0, 1.0)), torch.full_like(scene, torch.nan)])
    scores = DriftScore()(images, scene)
    assert scores[1] > scores[2] > scores[0] and scores[3] == -torch.inf
    assert scores[0].item() == pytest.approx(-5.0, abs=0.1)
    with pytest.raises(ValueError, match="no reference was given"):
        DriftScore()(images)
