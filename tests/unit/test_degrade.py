"""Degradations: seeded, in range, and nothing at strength 0."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.basic import downscale, gaussian_blur, gaussian_noise, low_light
from comfyui_fluxir.fluxir_core.degrade.presets import EVALUATION, degrade_named, degrade_random


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 12, 10), (48, 40), mode="bilinear")[0]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", EVALUATION)
def test_an_evaluated_degradation_is_an_image_of_the_same_size_and_repeats_with_its_seed(image, name):
    degraded = degrade_named(image, name, seed=3)
    assert degraded.shape == image.shape
    assert 0 <= degraded.min() and degraded.max() <= 1
    assert torch.equal(degraded, degrade_named(image, name, seed=3))
    assert (degraded - image).abs().mean() > 0.005


@pytest.mark.parametrize("name", [name for name in EVALUATION if name != "jpeg"])
def test_another_seed_gives_another_image(image, name):
    assert not torch.equal(degrade_named(image, name, 0), degrade_named(image, name, 1))


def test_an_unknown_degradation_is_refused(image):
    with pytest.raises(ValueError, match="no degradation 'rain'; use one of noise"):
        degrade_named(image, "rain", 0)


def test_at_strength_zero_the_image_is_unchanged(image):
    for same in (
        gaussian_noise(image, 0, generator()),
        gaussian_blur(image, 0),
        downscale(image, 1),
        low_light(image, 1, generator()),
    ):
        assert torch.equal(same, image)


def test_noise_has_the_stated_deviation():
    gray = torch.full((3, 128, 128), 0.5)
    assert (gaussian_noise(gray, 10, generator()) - gray).std().item() * 255 == pytest.approx(10, rel=0.02)


def test_low_light_scales_the_light_and_not_the_encoded_pixels():
    gray = torch.full((3, 256, 256), 0.5)
    dark = low_light(gray, 0.25, generator(), read_noise=0)
    assert (dark**2.2).mean().item() == pytest.approx(0.25 * 0.5**2.2, rel=0.02)


def test_random_degradations_keep_size_and_range_and_repeat_with_their_generator(image):
    first, second = ([degrade_random(image, g) for _ in range(30)] for g in (generator(5), generator(5)))
    for one, other in zip(first, second):
        assert torch.equal(one, other)
        assert one.shape == image.shape and 0 <= one.min() and one.max() <= 1
    assert len({one.mean().item() for one in first}) > 20
