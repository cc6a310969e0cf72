"""The map of invented detail: what of a restored image its degraded input does not explain."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_blur, gaussian_noise
from comfyui_fluxir.fluxir_core.image.invented_detail import heat_map, invented_detail
from comfyui_fluxir.training.miniature.scenes import load_photo
from torch.nn import functional as F

PATCH = slice(48, 96)
INSIDE, OUTSIDE = slice(56, 88), slice(0, 32)


@pytest.fixture(scope="module")
def photos():
    """(4, 3, 144, 144): pieces of four photos."""
    pieces = [load_photo(name)[60:204, 100:244].copy() for name in ("astronaut", "coffee", "motorcycle_left", "grass")]
    return torch.stack([torch.from_numpy(piece) for piece in pieces]).permute(0, 3, 1, 2) / 255


def random(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def blurred(images, sigma):
    """As a file has it: with 8 bits."""
    return (torch.stack([gaussian_blur(p, sigma) for p in images]) * 255).round() / 255


def noisy(images, sigma):
    return torch.stack([gaussian_noise(p, sigma, torch.Generator().manual_seed(i)) for i, p in enumerate(images)])


def planted(images, kind):
    """`images` with a texture in PATCH that they lack."""
    texture = torch.zeros_like(images[:1])
    if kind == "grating":
        axis = torch.arange(144.0)
        texture += 0.08 * torch.sin(1.3 * axis[:, None] + 0.7 * axis)
    else:
        texture += 0.06 * torch.randn(texture.shape, generator=torch.Generator().manual_seed(3))
    inside = torch.zeros(144, 144)
    inside[PATCH, PATCH] = 1
    return (images + inside * texture).clamp(0, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p,
        lambda p: p * 0.6,
        lambda p: 0.7 * p + 0.2,
        lambda p: p**0.8,
        lambda p: 1 - p,
        lambda p: p * torch.tensor([0.7, 0.9, 0.6])[:, None, None] + 0.05,
    ],
    ids=["the same", "darker", "paler", "gamma", "negative", "color cast"],
)
def test_another_brightness_contrast_or_color_invents_nothing(photos, change):
    share = invented_detail(change(photos), photos)
    assert share.shape == (4, 1, 144, 144) and share.mean() < 0.01 and share.max() < 0.1, (share.mean(), share.max())


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_sharpening_invents_nothing(photos, sigma):
    degraded = blurred(photos, sigma)
    sharpened = (degraded + 1.5 * (degraded - blurred(degraded, 2.0))).clamp(0, 1)
    assert invented_detail(sharpened, degraded).mean() < 0.03


def test_smoothing_invents_nothing(photos):
    assert invented_detail(blurred(photos, 2.0), photos).mean() < 0.03


@pytest.mark.parametrize("kind", ["grating", "noise"])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_a_planted_texture_is_found_where_it_is(photos, kind, sigma):
    degraded = blurred(photos, sigma)
    share = invented_detail(planted(degraded, kind), degraded)
    # A photo's own strong contrast there is explained, and has its part in the share.
    inside, outside = share[..., INSIDE, INSIDE].mean((1, 2, 3)), share[..., OUTSIDE, :].mean((1, 2, 3))
    assert inside.min() > 0.2 and inside.mean() > 0.4 and outside.max() < 0.01, (inside, outside)


def test_texture_on_what_the_input_shows_flat_is_all_invented():
    flat = torch.full((1, 3, 144, 144), 0.5)
    for kind in ("grating", "noise"):
        share = invented_detail(planted(flat, kind), flat)
        assert share[..., INSIDE, INSIDE].min() > 0.99 and share[..., OUTSIDE, :].mean() < 0.01
    faint = invented_detail(flat + 0.004 * (random(0, 1, 3, 144, 144) - 0.5), flat)
    assert faint.max() < 0.05  # it hardly shows


def test_the_stronger_the_texture_the_higher_its_share(photos):
    degraded = blurred(photos, 2.0)
    texture = planted(degraded, "noise") - degraded
    shares = [invented_detail(degraded + gain * texture, degraded)[..., INSIDE, INSIDE].mean() for gain in (0, 0.2, 0.5, 1)]
    assert shares[0] < 1e-4 and all(b > a + 0.05 for a, b in zip(shares, shares[1:])), shares


def test_another_image_is_invented_nearly_everywhere(photos):
    share = invented_detail(photos.roll(1, 0), photos)
    assert share.mean() > 0.9 and (share > 0.6).float().mean() > 0.95


def test_the_more_an_input_has_lost_the_less_of_the_original_it_explains(photos):
    for degrade, levels in ((blurred, (0.7, 1.5, 3.0)), (noisy, (5, 15, 40))):
        shares = [invented_detail(photos, degrade(photos, level)).mean() for level in levels]
        assert shares[0] < 0.2 and all(b > 1.3 * a for a, b in zip(shares, shares[1:])), shares


def test_noise_that_was_removed_is_not_invented_but_noise_that_was_added_is(photos):
    assert invented_detail(blurred(photos, 1.0), noisy(photos, 10)).mean() < 0.1
    assert invented_detail(noisy(torch.full_like(photos, 0.5), 20), torch.full_like(photos, 0.5)).min() > 0.99


def test_the_inputs_size_does_not_matter(photos):
    degraded = blurred(photos, 2.0)
    restored = planted(degraded, "grating")
    small = F.interpolate(degraded, scale_factor=0.5, mode="bilinear", antialias=True)
    difference = (invented_detail(restored, small) - invented_detail(restored, degraded)).abs()
    assert difference.mean() < 0.05


def test_one_input_serves_a_batch_and_a_batch_is_its_images(photos):
    together = invented_detail(photos, photos[:1])
    alone = torch.cat([invented_detail(p[None], photos[:1]) for p in photos])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (7, 130)])
def test_small_and_narrow_images_have_a_map(size):
    restored, degraded = random(0, 1, 3, *size), random(1, 1, 3, *size)
    share = invented_detail(restored, degraded)
    assert share.shape == (1, 1, *size) and share.isfinite().all() and 0 <= share.min() and share.max() <= 1
    assert invented_detail(restored, restored).max() < 1e-4


def test_the_heat_map_is_dim_gray_where_nothing_is_invented_and_hot_where_all_is(photos):
    share = torch.zeros(4, 1, 144, 144)
    share[..., :72] = 1
    heat = heat_map(share, photos)
    assert torch.equal(heat[..., :72], torch.ones(4, 3, 144, 72))
    cold = heat[..., 72:]
    assert cold.max() <= 0.5 and torch.allclose(cold[:, :1], cold[:, 1:2]) and cold.std() > 0.05
    rising = heat_map(torch.linspace(0, 1, 50).reshape(1, 1, 1, 50), torch.zeros(1, 3, 1, 50))
    assert (rising.sum(1).diff(dim=-1) > 0).all()


@pytest.mark.parametrize(
    "restored, degraded, sentence",
    [
        ((3, 8, 8), (1, 3, 8, 8), "the restored images have the shape (3, 8, 8); give (B, 3, H, W)."),
        ((1, 3, 8, 8), (1, 3, 0, 8), "the degraded images have the shape (1, 3, 0, 8); give (B, 3, H, W)."),
        ((3, 3, 8, 8), (2, 3, 8, 8), "2 degraded images for 3 restored ones; give one for each, or one for all."),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(restored, degraded, sentence):
    with pytest.raises(ValueError) as refusal:
        invented_detail(random(0, *restored), random(1, *degraded))
    assert str(refusal.value) == sentence


def test_nan_is_refused():
    with pytest.raises(ValueError, match="^the degraded images hold NaN or infinity; give images without.$"):
        invented_detail(random(0, 1, 3, 8, 8), torch.full((1, 3, 8, 8), torch.nan))
