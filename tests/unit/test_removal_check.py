"""The check of what a degradation remover made of an image."""

import re

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.basic import downscale, gaussian_blur, gaussian_noise
from comfyui_fluxir.fluxir_core.degrade.presets import degrade_named
from comfyui_fluxir.fluxir_core.verify.removal_check import HIGHEST, LOWEST, removal_check
from comfyui_fluxir.training.miniature.scenes import load_photo
from comfyui_fluxir.training.studies.calibrate_removal import BAD, DEGRADATIONS, GOOD
from torch.nn import functional as F


def photo(name="astronaut", side=192):
    pixels = torch.from_numpy(load_photo(name).copy()).permute(2, 0, 1).float() / 255
    top, left = ((extent - 2 * side) // 2 for extent in pixels.shape[1:])
    return F.avg_pool2d(pixels[:, top : top + 2 * side, left : left + 2 * side], 2)


@pytest.fixture(scope="module")
def pair():
    return photo(), degrade_named(photo(), "noise", 0)


def check(cleaned, degraded):
    (finding,) = removal_check(cleaned[None], degraded[None])
    return finding


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_undistorted_photo_and_the_image_itself_are_usable(name):
    degraded = DEGRADATIONS[name](photo())
    for cleaned in (photo(), degraded):
        assert check(cleaned, degraded).usable, check(cleaned, degraded)


@pytest.mark.parametrize("name", GOOD)
def test_removers_that_do_their_work_are_usable(pair, name):
    clean, degraded = pair
    finding = check(GOOD[name](degraded, clean), degraded)
    assert finding.usable and set(finding.measured) == {*LOWEST, *HIGHEST}, finding


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("blurred by 1/30", "quarter missing")])
@pytest.mark.parametrize("degradation", ["noise", "sr4"])
def test_ruins_are_refused_with_a_reason(name, degradation):
    degraded = DEGRADATIONS[degradation](photo())
    finding = check(BAD[name](degraded, photo("coffee")), degraded)
    assert not finding.usable and all(finding.reasons)


@pytest.mark.parametrize(
    "ruin, reason",
    [
        ("inverted", "its large shapes agree with the degraded image's by -1.00, less than 0.60"),
        ("contrast 0.15", "its contrast is 0.15 of the degraded image's, less than 0.30"),
        ("blurred by 1/15", "it keeps 0.0# of the degraded image's structure, less than 0.25"),
        ("red and blue swapped", "its colors agree with the degraded image's by -0.##, less than 0.90"),
        ("two levels", "0.## more of its values are black or white, more than 0.20"),
        ("salt and pepper", "its noise is #.## times what is allowed, more than 1.00"),
        ("checkerboard 8", "its lines on an 8-pixel grid are #.## times what is allowed, more than 1.00"),
        ("NaN", "it holds NaN or infinity"),
    ],
)
def test_the_reason_is_the_right_one_and_gives_the_value(ruin, reason):
    reasons = check(BAD[ruin](photo(), photo("coffee")), photo()).reasons
    assert any(re.fullmatch(re.escape(reason).replace(r"\#", r"\d"), found) for found in reasons), reasons


def test_exposure_contrast_and_color_strength_are_free():
    dark = degrade_named(photo(), "low_light", 0)
    for degraded, cleaned in ((dark, photo()), (photo(), photo() ** 0.6), (photo() * 0.5 + 0.4, photo())):
        assert check(cleaned, degraded).usable
    gray = photo().mean(0, keepdim=True).expand(3, -1, -1)
    assert check(photo(), gray).usable and not check(gray, photo()).usable


def test_sizes_may_differ_either_way_and_shapes_may_be_odd(pair):
    clean, degraded = pair
    large = F.interpolate(clean[None], (700, 710), mode="bicubic")[0].clamp(0, 1)
    assert check(large, degraded).usable and check(downscale(clean, 2), degraded).usable
    assert not check(1 - large, degraded).usable
    for shape in ((3, 1, 1), (3, 7, 300), (1, 40, 50), (4, 20, 31)):
        strange = torch.rand(shape).half()
        assert check(strange, strange).usable
    small = downscale(clean, 4)
    assert small.shape[1] < 64 and check(clean, small).usable and not check(clean.flip(1), small).usable


def test_a_flat_image_may_stay_flat_but_not_become_something():
    flat = torch.full((3, 80, 80), 0.5)
    assert check(flat, flat).usable and check(flat * 1.2, flat).usable
    assert not check(F.interpolate(photo()[None], (80, 80))[0], flat).usable
    assert not check(flat, F.interpolate(photo()[None], (80, 80))[0]).usable


def test_every_image_of_a_batch_is_judged_by_itself(pair):
    clean, degraded = pair
    ruined = gaussian_blur(clean, 20)
    other = photo("coffee")
    findings = removal_check(torch.stack([clean, ruined, other]), torch.stack([degraded, degraded, other]))
    assert [finding.usable for finding in findings] == [True, False, True]
    assert findings[1] == check(ruined, degraded)


def test_nan_on_either_side_is_a_reason_of_its_own(pair):
    clean, degraded = pair
    broken = degraded.clone()
    broken[0, 0, 0] = torch.inf
    assert check(broken, degraded).reasons == ("it holds NaN or infinity",)
    assert check(clean, broken).reasons == ("the degraded image holds NaN or infinity",)


def test_numbers_of_images_must_agree(pair):
    with pytest.raises(ValueError, match="verify: 2 cleaned images for 1 degraded ones; give one for each."):
        removal_check(torch.stack(pair), pair[1][None])


def test_more_noise_than_before_is_refused_and_amplified_noise_is_not(pair):
    clean, degraded = pair
    assert not check(gaussian_noise(clean, 60, torch.Generator().manual_seed(1)), degraded).usable
    dark = degraded * 0.3
    assert check((dark * 3).clamp(0, 1), dark).usable
