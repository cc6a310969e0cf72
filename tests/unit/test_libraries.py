"""What other libraries compute too is what they compute: scipy, scikit-image, OpenCV, Pillow, diffusers, transformers, peft and, where it is installed, pyiqa."""

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.blur import convolve, gaussian
from comfyui_fluxir.fluxir_core.degrade.image import linear_to_srgb, srgb_to_linear
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, flux_sigmas
from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions
from comfyui_fluxir.fluxir_core.image.align import measure_drift
from comfyui_fluxir.fluxir_core.image.pixels import blur, luma
from comfyui_fluxir.fluxir_core.lora.lora import LoRA
from comfyui_fluxir.fluxir_core.verify.aggregate import mean_z, rank_sum
from comfyui_fluxir.fluxir_core.verify.evaluation import Evaluation
from comfyui_fluxir.fluxir_core.verify.niqe import _asymmetric_gaussian
from comfyui_fluxir.fluxir_core.verify.piqe import PIQE
from comfyui_fluxir.fluxir_core.verify.pretrained import crops
from PIL import Image

RANDOM = torch.Generator().manual_seed(0)


def photo(height=96, width=128):
    """(3, H, W) of smooth structure and a little noise."""
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=RANDOM)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (smooth + 0.05 * torch.randn(3, height, width, generator=RANDOM)).clamp(0, 1)


def test_ranks_and_z_scores_are_scipys():
    from scipy.stats import rankdata, zscore

    scores = {name: torch.randint(0, 6, (9, 4), generator=RANDOM).float() for name in "abc"}
    ranks = sum((rankdata(own.numpy(), axis=0) - 1) / 8 for own in scores.values())
    np.testing.assert_allclose(rank_sum(scores).numpy(), ranks, atol=1e-6)
    np.testing.assert_allclose(mean_z(scores).numpy(), sum(zscore(own.numpy()) for own in scores.values()) / 3, atol=1e-5)


def test_a_gaussian_blur_is_scipys():
    from scipy.ndimage import gaussian_filter

    planes = torch.rand(2, 3, 20, 30, generator=RANDOM, dtype=torch.float64)
    expected = gaussian_filter(planes.numpy(), (0, 0, 1.7, 1.7), mode="nearest", radius=(0, 0, 4, 4))
    np.testing.assert_allclose(blur(planes, 1.7, 4).numpy(), expected, atol=1e-12)


def test_blur_kernels_and_what_they_do_are_opencvs_and_scipys():
    import cv2
    from scipy.ndimage import convolve as scipys

    line = cv2.getGaussianKernel(9, 1.3)
    np.testing.assert_allclose(gaussian(4, 1.3).numpy(), line @ line.T, atol=1e-6)
    image, kernel = torch.rand(3, 20, 30, generator=RANDOM), torch.rand(5, 5, generator=RANDOM)
    expected = np.stack([scipys(plane.numpy(), kernel.numpy(), mode="mirror") for plane in image])
    np.testing.assert_allclose(convolve(image, kernel).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-2, 1)])
def test_a_shift_is_scikit_images(down, right):
    from skimage.registration import phase_cross_correlation

    image = photo(160, 192)
    moved = torch.roll(image, (down, right), (1, 2))
    theirs, _, _ = phase_cross_correlation(*(luma(own[None])[0, 0].numpy() for own in (moved, image)), upsample_factor=20)
    drift = measure_drift(moved, image, scale=False)
    assert (drift.down, drift.right) == pytest.approx(tuple(theirs), abs=0.1) and tuple(theirs) == (down, right)


def test_an_image_is_prepared_for_clip_as_transformers_prepares_it():
    from transformers import CLIPImageProcessor

    pixels = (255 * photo(72, 100)).round().to(torch.uint8)
    given = Image.fromarray(pixels.movedim(0, -1).numpy())
    settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_normalize": False}
    expected = CLIPImageProcessor(**settings)(given, return_tensors="pt")["pixel_values"][0]
    views = crops(pixels[None] / 255, 32)[0]
    apart = 255 * (views[len(views) // 2] - expected).abs()
    assert apart.max() < 3 and apart.mean() < 0.5  # theirs is rounded to 8 bits behind each axis


def test_a_new_lora_starts_as_pefts_gaussian_one():
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(3072, 64)), LoraConfig(r=16, target_modules=["0"], init_lora_weights="gaussian")
    )
    theirs = {name: weight for name, weight in peft.named_parameters() if "lora" in name}
    ours = dict(LoRA.new(FluxDimensions(3072, 24, 64, 32, 1, 0, False), 16).named_parameters())
    for kind, their_kind in (("down", "lora_A"), ("up", "lora_B")):
        (their_weight,) = (weight for name, weight in theirs.items() if their_kind in name)
        for weight in (weight for name, weight in ours.items() if kind in name):
            assert weight.std().item() == pytest.approx(their_weight.std().item(), rel=0.05, abs=1e-9)


def test_luma_is_pillows():
    pixels = torch.randint(0, 256, (64, 64, 3), generator=RANDOM, dtype=torch.uint8)
    gray = np.asarray(Image.fromarray(pixels.numpy()).convert("L"), np.float32)
    assert np.abs(255 * luma(pixels.movedim(-1, 0)[None] / 255)[0, 0].numpy() - gray).max() < 0.51  # it rounds


def test_linear_light_is_scikit_images():
    from skimage.color import rgb2xyz, xyz2rgb
    from skimage.color.colorconv import xyz_from_rgb

    encoded = torch.rand(5, 7, 3, generator=RANDOM, dtype=torch.float64)
    expected = rgb2xyz(encoded.numpy()) @ np.linalg.inv(xyz_from_rgb).T
    np.testing.assert_allclose(srgb_to_linear(encoded).numpy(), expected, atol=1e-6)
    light = torch.rand(5, 7, 3, generator=RANDOM, dtype=torch.float64)
    np.testing.assert_allclose(linear_to_srgb(light).numpy(), xyz2rgb(light.numpy() @ xyz_from_rgb.T), atol=1e-4)


def test_psnr_and_ssim_are_scikit_images():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    clean = photo()
    shown = (clean + 0.1 * torch.randn(clean.shape, generator=RANDOM)).clamp(0, 1)
    found = Evaluation((), originals=True)(shown, None, clean)
    pixels = [image.movedim(0, -1).double().numpy() for image in (clean, shown)]
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(*pixels, data_range=1), abs=1e-3)
    settings = {"data_range": 1, "channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert found["ssim"] == pytest.approx(structural_similarity(*pixels, **settings), abs=2e-3)


@pytest.mark.parametrize("steps", [1, 4, 7, 28])
def test_sampling_is_diffusers_flow_matching_euler(steps):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), mu=1.15)
    sigmas = flux_sigmas(steps)
    torch.testing.assert_close(scheduler.sigmas, sigmas, atol=3e-4, rtol=0)  # ours are of core's grid of 10,000
    noise = torch.randn(2, 16, generator=RANDOM)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(torch.tanh(x) * (t / 1000), t, x).prev_sample
    torch.testing.assert_close(euler(lambda x, t: torch.tanh(x) * t[:, None], noise, sigmas), x, atol=1e-3, rtol=1e-3)


def test_piqe_is_pyiqas():
    pyiqa = pytest.importorskip("pyiqa")
    shown = torch.stack([photo(128, 160), torch.nn.functional.avg_pool2d(photo(), 3, 1, 1).repeat(1, 2, 2)[:, :128, :160]])
    metric = pyiqa.create_metric("piqe", device=torch.device("cpu"))
    expected = torch.stack([metric(image[None]).flatten()[0] for image in shown])
    torch.testing.assert_close(-PIQE()(shown), expected.float(), atol=1.0, rtol=0.02)


def test_niqes_statistics_are_pyiqas():
    theirs = pytest.importorskip("pyiqa.archs.func_util").estimate_aggd_param
    values = torch.randn(6, 1, 96, 96, generator=RANDOM).sinh()
    values = torch.where(values > 0, 1.5 * values, values)
    shape, _mean, left, right = _asymmetric_gaussian(values.flatten(1)).unbind(-1)
    for found, expected in zip((shape, left, right), theirs(values)):
        torch.testing.assert_close(found, expected.flatten(), atol=1e-2, rtol=1e-2)  # theirs is in float32
