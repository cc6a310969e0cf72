"""Consistency judges what a restoration must keep, whatever light and noise the input has."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.presets import EVALUATION, degrade_named
from comfyui_fluxir.fluxir_core.verify.fidelity import Consistency, downsampled_psnr
from comfyui_fluxir.fluxir_core.verify.vetoes import vetoes
from comfyui_fluxir.training.miniature.scenes import load_photo

CROPS = (("astronaut", 0, 128), ("coffee", 100, 150), ("motorcycle_left", 200, 250), ("camera", 60, 130))


@pytest.fixture(scope="module")
def photos():
    crops = [load_photo(name)[top : top + 256, left : left + 256] for name, top, left in CROPS]
    return [torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255 for crop in crops]


def cost(candidate, given):
    return -Consistency()(candidate[None], given).item()


@pytest.mark.parametrize("name", ["noise", "jpeg", "low_light"])
def test_the_clean_image_costs_nothing(photos, name):
    for clean in photos:
        assert cost(clean, degrade_named(clean, name, 0)) == 0


def test_brightening_costs_nothing_at_any_exposure(photos):
    for clean in photos:
        for light in (0.7, 0.38, 0.15):
            assert cost(clean, light * clean) == 0
            assert downsampled_psnr(clean[None], light * clean) > 60


def test_a_brighter_restoration_of_a_dark_input_is_not_the_worse_one(photos):
    for clean in photos:
        given = degrade_named(clean, "low_light", 0)
        found = downsampled_psnr(torch.stack([0.7 * clean, clean]), given)
        torch.testing.assert_close(found[0], found[1], atol=0.05, rtol=0)


def test_the_input_costs_nothing(photos):
    for name in EVALUATION:
        for clean in photos:
            given = degrade_named(clean, name, 0)
            assert cost(given, given) == 0


@pytest.mark.parametrize("name", EVALUATION)
def test_another_photo_costs_more_than_a_unit(photos, name):
    for clean, other in zip(photos, photos[1:] + photos[:1]):
        given = degrade_named(clean, name, 0)
        assert cost(other, given) > max(1, cost(clean, given) + 1)


@pytest.mark.parametrize("name", EVALUATION)
def test_an_image_altered_in_one_place_costs(photos, name):
    for clean, other in zip(photos, photos[1:] + photos[:1]):
        given, altered = degrade_named(clean, name, 0), clean.clone()
        altered[:, 64:160, 64:160] = other[:, 64:160, 64:160]
        assert cost(altered, given) > cost(clean, given) + 0.1


def test_a_well_exposed_input_leaves_no_room_for_other_light_or_color(photos):
    tinted = photos[1] * torch.tensor([1.0, 1.0, 0.5])[:, None, None]
    assert cost(photos[0] * 0.5, photos[0]) > 0.5 and cost(tinted, photos[1]) > 0.5


def test_noise_lowers_the_limit_only_by_what_it_hides(photos):
    """What is more than the noise of the input costs the same noise more on a clean input."""
    extra = 0.08 * torch.randn(photos[0].shape, generator=torch.Generator().manual_seed(1))
    quarter = torch.nn.functional.interpolate(extra[None, :, :64, :64], scale_factor=4)[0]
    candidate = (photos[0] + quarter).clamp(0, 1)
    assert cost(candidate, photos[0]) > cost(candidate, degrade_named(photos[0], "noise", 0)) > 0.5


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(3, 256, 256), (3, 70, 41), (3, 1, 1)])
def test_constant_inputs_have_finite_scores(photos, level, shape):
    given = torch.full(shape, level)
    candidates = torch.stack([photos[0], torch.zeros_like(photos[0]), torch.full_like(photos[0], level)])
    scores = Consistency()(candidates, given)
    assert scores.isfinite().all() and scores[2] == 0 and scores[0] < -1


def test_an_input_of_another_size_is_compared(photos):
    small = torch.nn.functional.interpolate(photos[0][None], (64, 64), mode="area")[0]
    large = torch.nn.functional.interpolate(photos[0][None], (512, 512), mode="bilinear")[0]
    assert cost(photos[0], small) == cost(photos[0], large) == 0
    assert cost(photos[1], small) > 1 and cost(photos[1], large) > 1


@pytest.mark.parametrize("name", EVALUATION)
def test_the_clean_image_is_never_refused(photos, name):
    for clean in photos:
        assert not any(refused.any() for refused in vetoes(clean[None], degrade_named(clean, name, 0)).values())
