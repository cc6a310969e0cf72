"""The degradations of Degrade Image: what all have in common, and the signature of each."""

import importlib
import math

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.blur import aperture, convolve, gaussian, sinc, spread
from comfyui_fluxir.fluxir_core.degrade.image import Draw, linear_to_srgb, srgb_to_linear
from comfyui_fluxir.fluxir_core.degrade.real_esrgan import FIRST, KERNELS, _noisy, poisson
from comfyui_fluxir.fluxir_core.degrade.sensor import SHOT, sensor_error
from comfyui_fluxir.fluxir_core.degrade.tasks import TASKS
from comfyui_fluxir.fluxir_core.degrade.weather import drops_on_glass
from comfyui_fluxir.training.miniature.scenes import load_photo

every_task = pytest.mark.parametrize("name", TASKS)


@pytest.fixture(scope="module")
def photos():
    """Three crops of photos, (3, 3, 96, 80)."""
    crops = [load_photo(name)[100:196, 180:260] for name in ("astronaut", "coffee", "motorcycle_left")]
    return torch.stack([torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255 for crop in crops])


def flat(level, side=128, images=1):
    return torch.full((images, 3, side, side), float(level))


# What all have in common


@every_task
def test_at_strength_zero_nothing_changes(photos, name):
    for same in (photos, photos.half(), photos * 1.5 - 0.1):
        assert torch.equal(TASKS[name](same, 0, [1, 2, 3]), same)


@every_task
@pytest.mark.parametrize("strength", [0.01, 0.5, 1])
def test_the_result_is_a_changed_image_of_the_same_size(photos, name, strength):
    degraded = TASKS[name](photos, strength, [1, 2, 3])
    assert degraded.shape == photos.shape and degraded.dtype == photos.dtype
    assert 0 <= degraded.min() and degraded.max() <= 1
    assert ((degraded - photos).abs().mean((1, 2, 3)) > 1e-6).all()


@every_task
def test_an_image_and_its_seed_give_the_same_alone_and_in_any_batch(photos, name):
    together = TASKS[name](photos, 0.7, [5, 6, 7])
    assert torch.equal(together, TASKS[name](photos, 0.7, [5, 6, 7]))
    assert torch.equal(together.flip(0), TASKS[name](photos.flip(0), 0.7, [7, 6, 5]))
    assert torch.equal(together[1:2], TASKS[name](photos[1:2], 0.7, [6]))
    assert not torch.equal(together[1:2], TASKS[name](photos[1:2], 0.7, [8]))


@every_task
def test_more_strength_takes_an_image_farther_from_itself(photos, name):
    distances = []
    for strength in (0, 0.15, 0.4, 0.7, 1):
        runs = [TASKS[name](photos, strength, range(3 * run, 3 * run + 3)) - photos for run in range(4)]
        distances.append(torch.stack(runs).abs().mean())
    assert distances == sorted(set(distances))


@every_task
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 40), (17, 2), (61, 47)])
def test_odd_and_tiny_images_work(name, size):
    for strength in (1e-6, 0.5, 1):
        degraded = TASKS[name](torch.rand(2, 3, *size), strength, [0, 1])
        assert degraded.shape == (2, 3, *size) and degraded.isfinite().all()


@every_task
def test_half_precision_is_computed_in_full(photos, name):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        degraded = TASKS[name](photos.to(dtype), 0.5, [1, 2, 3])
        exact = TASKS[name](photos.to(dtype).float(), 0.5, [1, 2, 3])
        assert degraded.dtype == dtype and torch.equal(degraded, exact.to(dtype))


@every_task
def test_the_work_is_done_on_the_images_device(name, monkeypatch):
    """PyTorch's meta device has no numbers, and refuses those of another device as a GPU does. JPEG is the CPU's in any case."""
    monkeypatch.setattr("comfyui_fluxir.fluxir_core.degrade.real_esrgan.jpeg", lambda image, quality: image)
    for seed in range(20):
        degraded = TASKS[name].__wrapped__(torch.empty(3, 64, 48, device="meta"), 0.7, Draw(seed))
        assert degraded.device.type == "meta" and degraded.shape == (3, 64, 48)


@every_task
def test_values_outside_the_range_are_clipped_first(photos, name):
    outside = photos * 2 - 0.5
    assert torch.equal(TASKS[name](outside, 0.5, [1, 2, 3]), TASKS[name](outside.clamp(0, 1), 0.5, [1, 2, 3]))


@pytest.mark.parametrize("name", ["low resolution", "motion blur", "defocus blur", "raindrops", "snow"])
def test_a_gray_image_stays_gray(photos, name):
    gray = photos.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    degraded = TASKS[name](gray, 0.8, [1, 2, 3])
    assert (degraded - degraded.mean(1, keepdim=True)).abs().max() < 1e-4


@every_task
def test_what_it_cannot_work_with_is_refused_in_one_sentence(photos, name):
    broken = photos.clone()
    broken[1, 0, 3, 3] = torch.nan
    for strength in (0, 0.5):
        with pytest.raises(ValueError, match=r"^degrade: image 2 holds NaN or infinity; give one without\.$"):
            TASKS[name](broken, strength, [1, 2, 3])
    with pytest.raises(ValueError, match=r"^degrade: strength 1\.5; give a number from 0 to 1\.$"):
        TASKS[name](photos, 1.5, [1, 2, 3])
    with pytest.raises(ValueError, match=r"^degrade: 2 seeds for 3 images; give one for each\.$"):
        TASKS[name](photos, 0.5, [1, 2])
    with pytest.raises(ValueError, match=r"^degrade: images of shape \(3, 96, 80\) and type torch.float32; give fl"):
        TASKS[name](photos[0], 0.5, [1, 2, 3])


def test_an_empty_batch_and_the_largest_seeds_work(photos):
    assert TASKS["snow"](photos[:0], 0.5, []).shape == (0, 3, 96, 80)
    wrapped = TASKS["sensor noise"](photos[:2], 0.5, [2**64 - 1, 2**64])
    assert torch.equal(wrapped[1:], TASKS["sensor noise"](photos[1:2], 0.5, [0]))


# The signature of each


def test_low_resolution_loses_the_high_frequencies_and_keeps_the_mean(photos):
    def fine(images):
        window = torch.outer(*(torch.hann_window(extent) for extent in images.shape[-2:]))  # no jumps at the edges
        spectrum = torch.fft.fft2(images * window).abs() ** 2
        rows, columns = (torch.fft.fftfreq(extent).abs() for extent in images.shape[-2:])
        return spectrum[..., (rows[:, None] > 0.25) | (columns > 0.25)].sum()

    small = TASKS["low resolution"](photos, 1, [1, 2, 3])
    assert fine(small) < 0.1 * fine(photos)
    assert (small.mean((2, 3)) - photos.mean((2, 3))).abs().max() < 0.01


def point_spread(name, seed, strength=1.0, side=129):
    """The light of a single bright pixel after `name`, its sum, and the deviations along and across its longer direction."""
    image = torch.zeros(1, 3, side, side)
    image[..., side // 2, side // 2] = 1
    light = srgb_to_linear(TASKS[name](image, strength, [seed]))[0, 0].double()
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64) - side // 2] * 2, indexing="ij")
    places, weights = torch.stack([y, x], -1).view(-1, 2), (light / light.sum()).view(-1, 1)
    middle = (places * weights).sum(0)
    across, along = torch.linalg.eigvalsh((places - middle).T @ ((places - middle) * weights)).clamp(min=0).sqrt()
    return light.sum(), middle, along, across


def test_motion_blur_is_directional_and_defocus_is_not():
    shaken = [point_spread("motion blur", seed) for seed in range(20)]
    unfocused = [point_spread("defocus blur", seed) for seed in range(20)]
    assert torch.tensor([across / along for _, _, along, across in shaken]).median() < 0.4
    assert min(across / along for _, _, along, across in unfocused) > 0.9
    for light, middle, along, _ in shaken + unfocused:
        assert light == pytest.approx(1, abs=0.02) and middle.norm() < 0.1 and along > 0.5


def test_defocus_draws_a_disc_of_the_stated_radius():
    radii = [2 * along / 129 for _, _, along, _ in (point_spread("defocus blur", seed) for seed in range(20))]
    assert 0.014 < min(radii) and max(radii) < 0.026  # 2 %, give or take a fifth, and a polygon's loss


def test_sensor_noise_obeys_the_variance_law():
    """At green's own pixels of the mosaic nothing is interpolated: the variance of raw light is shot * value + read."""
    shot, read = 0.01, 1e-4
    for level in (0.05, 0.3, 0.8):
        error = sensor_error(torch.full((3, 400, 400), level), shot, read, Draw(3))
        assert error[1, 0::2, 1::2].var() == pytest.approx(shot * level + read, rel=0.03)
        red = error[0, 0::2, 0::2].var()
        assert 1.9 * shot * level < red < 2.4 * shot * level + 2.4**2 * read * 1.2


def test_shot_noise_grows_with_the_light_and_with_the_strengths_square():
    levels = (0.1, 0.2, 0.4)
    noisy = [srgb_to_linear(TASKS["sensor noise"](linear_to_srgb(flat(level, 256)), 0.5, [1]))[0, 1] for level in levels]
    variances = [green[0::2, 1::2].var() for green in noisy]
    slopes = [(b - a) / (v - u) for a, b, u, v in zip(variances, variances[1:], levels, levels[1:])]
    assert slopes == pytest.approx([SHOT / 4] * 2, rel=0.1)


def test_low_light_is_darker_and_relatively_noisier():
    gray = linear_to_srgb(flat(0.5, images=8))
    dim = srgb_to_linear(TASKS["low light"](gray, 1, range(8)))
    exposures = dim.mean((1, 2, 3)) / 0.5
    assert 2 ** (-4.5 * 1.15 * 1.3) < exposures.min() and exposures.max() < 2 ** (-4.5 * 0.85 * 0.7)
    noisy = srgb_to_linear(TASKS["sensor noise"](gray, math.sqrt(0.1), range(8)))  # the same sensor in full light
    rough = [(light[..., 1:] - light[..., :-1]).std() / light.mean() for light in (dim, noisy)]
    assert rough[0] > 2 * rough[1]


def test_water_takes_red_most_and_all_colors_to_its_own_with_distance():
    kept = srgb_to_linear(TASKS["underwater"](linear_to_srgb(flat(0.5, images=12)), 0.3, range(12))).mean((2, 3)) / 0.5
    assert (kept[:, 0] < kept[:, 1:].min(1).values).all()
    apart = []
    for strength in (0.2, 0.6, 1):
        black, white = (TASKS["underwater"](flat(level, images=12), strength, range(12)) for level in (0, 1))
        assert (black[:, 0] < black[:, 1:].amax(1)).all()  # the veil is blue or green
        apart.append(srgb_to_linear(white) - srgb_to_linear(black))
    assert apart[0].mean() > apart[1].mean() > apart[2].mean() > 0
    assert apart[2][:, :, :20].mean() < apart[2][:, :, -20:].mean()  # the top is farther


def test_raindrops_are_local_and_show_the_scene_upside_down(photos):
    for strength, least, most in ((0.1, 0.002, 0.1), (1, 0.03, 0.5)):
        changed = ((TASKS["raindrops"](photos, strength, [1, 2, 3]) - photos).abs().amax(1) > 1 / 255).float().mean()
        assert least < changed < most
    cover, refraction, rim = drops_on_glass(Draw(1), 200, 200, 1)
    assert 0 < cover.mean() < 0.1 and rim.max() <= 1
    for axis, places in enumerate(cover.nonzero().T.float()):
        looks = refraction[axis][cover > 0]
        assert torch.corrcoef(torch.stack([places, looks]))[0, 1] < -0.8
    assert not refraction[:, cover == 0].any()


def test_snow_only_adds_light_but_for_its_veil(photos, monkeypatch):
    dark = photos * 0.5
    assert (TASKS["snow"](dark, 1, [1, 2, 3]) - dark).min() > -1e-4
    monkeypatch.setattr(importlib.import_module(TASKS["snow"].__module__), "HAZE", 0)
    snowed = TASKS["snow"](photos, 1, [1, 2, 3]) - photos
    assert snowed.min() > -1e-4 and snowed.max() > 0.2
    assert 0.05 < (snowed.amax(1) > 0.1).float().mean() < 0.6


def test_real_esrgan_draws_its_own_recipe_for_every_image(photos):
    copies = photos[:1].expand(24, -1, -1, -1)
    degraded = TASKS["Real-ESRGAN"](copies, 1, range(24))
    errors = (degraded - copies).square().mean((1, 2, 3))
    assert len(set(errors.tolist())) == 24 and errors.max() > 3 * errors.min()


def test_real_esrgan_has_seesrs_qualities_and_sizes_at_full_strength_and_less_below(monkeypatch):
    module = importlib.import_module(TASKS["Real-ESRGAN"].__module__)
    qualities, sizes = [], []

    def enlarge(image, size):
        sizes.append(tuple(image.shape))
        return image.new_zeros(3, *size)

    monkeypatch.setattr(module, "upscale", enlarge)
    monkeypatch.setattr(module, "jpeg", lambda image, quality: (qualities.append(quality), image)[1])
    for strength, lowest, highest, size in ((1, 30, 95, (3, 16, 12)), (0.5, 65, 97.5, (3, 32, 24))):
        qualities.clear(), sizes.clear()
        TASKS["Real-ESRGAN"](flat(0.5, 1, 60).expand(-1, -1, 64, 48), strength, range(60))
        assert lowest <= min(qualities) < lowest + 3 and highest - 3 < max(qualities) <= highest and len(qualities) == 120
        assert set(sizes) == {size}


# What they are made of


def test_kernels_sum_to_one_and_have_the_stated_width():
    for kernel in (gaussian(10, 2), gaussian(10, 3, 1, 0.7, 0.6), gaussian(10, 2, power=1.5, plateau=True), sinc(10, 1.3),
                   aperture(7.3), aperture(5, 6, 0.3, 0.2), spread(torch.randn(50, 2))):  # fmt: skip
        assert len(kernel) % 2 and kernel.sum() == pytest.approx(1, abs=1e-5)
    x = torch.arange(-10.0, 11)
    wide = gaussian(10, 2.5, 1)
    assert (wide.sum(0) * x**2).sum().sqrt() == pytest.approx(2.5, rel=0.01)
    assert (wide.sum(1) * x**2).sum().sqrt() == pytest.approx(1, rel=0.01)
    assert sum(probability for probability, *_ in KERNELS.values()) == pytest.approx(1)


def test_a_sinc_kernel_passes_what_is_under_its_cutoff():
    kernel = sinc(40, math.pi / 2)
    response = torch.fft.fft2(kernel, s=(256, 256)).abs()[0, :128]  # 64 is the cut-off
    assert (response[:56] - 1).abs().max() < 0.1 and response[74:].max() < 0.1 and kernel.min() < 0


def test_convolution_reflects_at_edges_as_often_as_needed():
    image = torch.rand(3, 7, 9)
    padded = torch.nn.functional.pad(image[None], (4,) * 4, mode="reflect")
    kernel = torch.rand(9, 9)
    expected = torch.nn.functional.conv2d(padded, kernel.flip(0, 1).expand(3, 1, 9, 9), groups=3)[0]
    assert torch.allclose(convolve(image, kernel), expected, atol=1e-4)
    assert torch.allclose(convolve(torch.full((1, 2, 1), 0.3), gaussian(20, 9)), torch.tensor(0.3))


def test_poisson_counts_have_the_mean_and_variance_of_their_rate():
    for rate in (1, 5, 40, 200):
        counts = poisson(torch.tensor(float(rate)), torch.randn(400_000, generator=torch.Generator().manual_seed(0)))
        assert torch.equal(counts, counts.round()) and counts.min() >= 0
        assert counts.mean() == pytest.approx(rate, rel=0.03) and counts.var() == pytest.approx(rate, rel=0.01, abs=0.14)


@pytest.mark.parametrize("color", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.9, 0.4)])
def test_gray_poisson_noise_is_that_of_the_luma(color):
    """Its deviation is the root of BT.601's luma in photons, and all channels have the same (Real-ESRGAN's gray noise)."""

    class Gray(Draw):
        def uniform(self, low=0.0, high=1.0):
            return numbers.pop() if (low, high) == (0.0, 1.0) else low

    numbers = [0.9, 0.0]  # popped: gray, and not normal
    image = torch.tensor(color, dtype=torch.float32).view(3, 1, 1).expand(3, 512, 512)
    order = FIRST._replace(poisson=(0.2, 0.2))
    added = _noisy(0.25 + image / 2, order, 1.0, Gray(0)) - (0.25 + image / 2)
    luma = 0.25 + sum(w * c for w, c in zip((0.299, 0.587, 0.114), color)) / 2
    assert added.std((1, 2)).tolist() == pytest.approx([0.2 * (luma * 255) ** 0.5 / 255] * 3, rel=0.02)
    torch.testing.assert_close(added[0], added[2], rtol=0, atol=1e-6)
