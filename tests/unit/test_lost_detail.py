"""Detail that the autoencoder loses is given back where the input can be trusted, and nowhere else."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.image.lost_detail import give_back_detail
from comfyui_fluxir.fluxir_core.image.pixels import blur
from comfyui_fluxir.training.miniature.scenes import load_photo


@pytest.fixture(scope="module")
def photo():
    return torch.from_numpy(load_photo("coffee")[100:356, 150:406].copy()).permute(2, 0, 1)[None].float() / 255


def through_autoencoder(images):
    """What a lossy autoencoder does: fine detail goes."""
    return blur(images, 2.0, 6)


def error(images, photo):
    return (images - photo).square().mean().sqrt().item()


def test_a_clean_inputs_detail_comes_back(photo):
    lossy = through_autoencoder(photo)
    given_back = give_back_detail(lossy, photo, lossy)
    assert error(given_back, photo) < 0.25 * error(lossy, photo)


def test_noise_does_not(photo):
    noisy = (photo + 30 / 255 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    lossy = through_autoencoder(photo)
    given_back = give_back_detail(lossy, noisy, through_autoencoder(noisy))
    assert error(given_back, photo) < 1.02 * error(lossy, photo)
    flat = torch.full_like(photo, 0.5)
    noisy = flat + noisy - photo
    assert (give_back_detail(flat, noisy, through_autoencoder(noisy)) - flat).square().mean().sqrt() < 0.1 * 30 / 255


def test_dark_detail_is_not_laid_over_a_brightened_image(photo):
    dark = photo * 0.3
    lossy = through_autoencoder(photo)
    added = give_back_detail(lossy, dark, through_autoencoder(dark)) - lossy
    bright = (blur(photo, 4.0, 12).mean(1, keepdim=True) > 0.4).expand_as(photo)
    assert added[bright].abs().mean() < 0.1 * (dark - through_autoencoder(dark))[bright].abs().mean()


def test_strength_is_linear_and_nothing_at_zero(photo):
    lossy = through_autoencoder(photo)
    none, half, whole = (give_back_detail(lossy, photo, lossy, strength) for strength in (0.0, 0.5, 1.0))
    assert torch.equal(none, lossy)
    inside = (whole > 0) & (whole < 1)
    torch.testing.assert_close(half[inside], ((none + whole) / 2)[inside])


def test_what_does_not_fit_is_refused_by_name(photo):
    with pytest.raises(ValueError, match=r"the decoded images have the shape \(1, 3, 128, 256\)"):
        give_back_detail(photo, photo, photo[..., :128, :])
    with pytest.raises(ValueError, match="the degraded images hold NaN"):
        give_back_detail(photo, photo * torch.nan, photo)
