"""Color matching: known casts are undone, details stay, and nothing bleeds, clips to another hue or prints noise."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_blur, gaussian_noise
from comfyui_fluxir.fluxir_core.image.cielab import to_lab
from comfyui_fluxir.fluxir_core.image.color import METHODS, match_color
from comfyui_fluxir.training.miniature.scenes import load_photo
from torch.nn import functional as F

PHOTOS = ("astronaut", "coffee", "motorcycle_left", "retina", "ihc", "grass")
BYTE = 255
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def photos():
    """(6, 3, 256, 256): the middles of six photos."""
    return torch.cat([photo(name) for name in PHOTOS])


def photo(name, side=256):
    pixels = torch.from_numpy(load_photo(name).copy()).permute(2, 0, 1)[None].float() / 255
    extent = min(pixels.shape[2:])
    top, left = ((own - extent) // 2 for own in pixels.shape[2:])
    pixels = pixels[:, :, top : top + extent, left : left + extent]
    return F.interpolate(pixels, (side, side), mode="area")


def cast(images, seed=0):
    """`images` under a gain of 0.85 to 1.1, a gamma of 0.8 to 1.25 and an offset of -0.04 to 0.06, in each channel."""
    generator = torch.Generator().manual_seed(seed)
    gain, gamma, offset = torch.rand(3, len(images), 3, 1, 1, generator=generator)
    return ((0.85 + 0.25 * gain) * images ** (0.8 + 0.45 * gamma) + 0.1 * offset - 0.04).clamp(0, 1)


def degraded(images, kind):
    if kind == "noise":
        return torch.stack([gaussian_noise(p, 25, torch.Generator().manual_seed(i)) for i, p in enumerate(images)])
    if kind == "blur":
        return torch.stack([gaussian_blur(p, 2.0) for p in images])
    return F.interpolate(images, scale_factor=0.25, mode="area") if kind == "quarter" else images


def chart():
    """Saturated patches on gray, (1, 3, 256, 256), and for each pixel whether an edge is 32 or more pixels away."""
    image = torch.full((1, 3, 256, 256), 0.5)
    image[:, :, 96:192, 16:112] = torch.tensor([0.9, 0.1, 0.15])[:, None, None]
    image[:, :, 96:192, 144:240] = torch.tensor([0.1, 0.2, 0.9])[:, None, None]
    edges = F.max_pool2d(image, 3, 1, 1) != -F.max_pool2d(-image, 3, 1, 1)
    return image, F.max_pool2d(edges.any(1, keepdim=True).float(), 63, 1, 31)[0, 0] == 0


def ramps():
    """Ramps of gray, of a color and of two hues, (3, 3, 64, 256)."""
    t = torch.linspace(0.1, 0.9, 256)
    planes = [torch.stack([t, t, t]), torch.stack([t, 0.5 * t, 0.3 + 0.2 * t]), torch.stack([t, 0.8 * t + 0.1, 1 - t])]
    return torch.stack(planes)[:, :, None].expand(-1, -1, 64, -1).contiguous()


def error(images, truth):
    """Root of the mean squared error of each image, in units of 1/255."""
    return (images - truth).square().mean((1, 2, 3)).sqrt() * BYTE


def high_pass(images):
    return images - F.avg_pool2d(F.pad(images, (4,) * 4, mode="replicate"), 9, 1)


def hue(images):
    """The angle in degrees of `images` (B, 3, H, W) about the gray axis."""
    red, green, blue = images.unbind(1)
    return torch.rad2deg(torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue))


def turned(images, others):
    return ((hue(images) - hue(others) + 180) % 360 - 180).abs()


# Casts


@pytest.mark.parametrize("method, most, worst", [("wavelet", 2, 4), ("adain", 3, 5), ("lab", 5, 10)])
def test_a_global_cast_is_undone(photos, method, most, worst):
    errors = torch.cat([error(match_color(cast(photos, seed), photos, method), photos) for seed in range(3)])
    assert torch.cat([error(cast(photos, seed), photos) for seed in range(3)]).mean() > 11
    assert errors.mean() < most and errors.max() < worst, (errors.mean(), errors.max())


@pytest.mark.parametrize("kind, more", [("noise", 1.5), ("blur", 1), ("quarter", 1)])
@every_method
def test_a_degraded_reference_serves_as_well(photos, method, kind, more):
    clean, other = (error(match_color(cast(photos), degraded(photos, how), method), photos) for how in ("", kind))
    assert other.mean() < clean.mean() + more, (other.mean(), clean.mean())


@pytest.mark.parametrize("method, most", [("wavelet", 2), ("adain", 4), ("lab", 8)])
def test_gradients_are_matched_and_stay_monotone(method, most):
    for seed in range(3):
        matched = match_color(cast(ramps(), seed), ramps(), method)
        assert error(matched, ramps()).max() < most, error(matched, ramps())
        steps, wanted = matched.diff(dim=3), ramps().diff(dim=3)
        assert (steps * wanted.sign()).min() > (-1e-4 if method == "lab" else 0)  # lab ends in the gamut's boundary


def test_only_wavelet_follows_a_cast_that_differs_from_place_to_place(photos):
    generator = torch.Generator().manual_seed(0)
    shading = F.interpolate(0.04 * torch.randn(6, 3, 4, 4, generator=generator), (256, 256), mode="bicubic")
    drifted = (photos + shading).clamp(0, 1)
    left = {method: error(match_color(drifted, photos, method), photos).mean() for method in METHODS}
    assert left["wavelet"] < 0.25 * error(drifted, photos).mean() < left["lab"] and left["adain"] > left["lab"], left


def test_a_loss_of_saturation_is_undone_best_by_wavelet_and_lab(photos):
    gray = photos.mean(1, keepdim=True)
    left = {m: error(match_color(gray + 0.75 * (photos - gray), photos, m), photos).mean() for m in METHODS}
    assert max(left["wavelet"], left["lab"]) < 2.5 and max(left["wavelet"], left["lab"]) < left["adain"], left


@every_method
def test_an_exposure_is_brought_back_to_the_references(photos, method):
    matched = match_color(photos, 0.4 * photos, method)
    assert error(matched, 0.4 * photos).mean() < 5


@pytest.mark.parametrize("method, space", [("adain", lambda p: p), ("lab", to_lab)])
def test_adain_and_lab_match_mean_and_contrast_in_their_space(method, space):
    image, reference = (0.3 + 0.4 * F.interpolate(photo(name), (16, 16), mode="area") for name in PHOTOS[:2])
    mine, theirs = (space(p).flatten(2) for p in (match_color(image, reference, method), reference))
    assert torch.allclose(mine.mean(2), theirs.mean(2), atol=1e-3) and torch.allclose(mine.std(2), theirs.std(2), atol=3e-3)


# Details


@every_method
@pytest.mark.parametrize("kind", ["", "noise", "blur", "quarter"])
def test_details_are_the_images(photos, method, kind):
    drifted = cast(photos)
    mine, given = (high_pass(p).flatten(1) for p in (match_color(drifted, degraded(photos, kind), method), drifted))
    assert F.cosine_similarity(mine, given, dim=1).min() > 0.99


@every_method
def test_noise_of_the_reference_is_not_printed(method):
    ramp = F.interpolate(ramps()[:1], (256, 256), mode="bilinear")
    matched = match_color(ramp, degraded(ramp, "noise"), method)
    printed = (matched - ramp) - (matched - ramp).mean((2, 3), keepdim=True)
    assert printed.std() * BYTE < 1.5 and high_pass(printed).std() * BYTE < 0.1  # of a noise of 25
    assert printed[..., [0, 1, -2, -1]].std() * BYTE < 3  # at the border


@every_method
def test_a_flat_image_does_not_get_the_contrast_of_a_noisy_reference(method):
    texture = 0.5 + 0.002 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    matched = match_color(texture, degraded(torch.full_like(texture, 0.5), "noise"), method)
    assert high_pass(matched).std() < 2.5 * high_pass(texture).std()


@pytest.mark.parametrize("method, far, near", [("wavelet", 0.5, 8), ("adain", 8, 8), ("lab", 60, 60)])
def test_a_saturated_patch_has_no_halo_beyond_the_wavelets_reach(method, far, near):
    """In units of 1/255: `far` from 32 pixels to an edge on, `near` anywhere; these casts change colors by up to 31."""
    image, away = chart()
    for seed in range(4):
        matched = match_color(cast(image, seed), image, method)
        wrong = (matched - image).abs().amax((0, 1)) * BYTE
        assert wrong[away].max() < far and wrong.max() < near, (wrong[away].max(), wrong.max())
        assert away[130:158, 50:78].all()
        assert turned(matched, image)[:, 96:192, 16:112].max() < (25 if method == "lab" else 3)


@every_method
def test_a_patch_that_leaves_the_gamut_keeps_its_hue(method):
    image = torch.full((1, 3, 64, 64), 0.5)
    image[:, :, 16:48, 16:48] = torch.tensor([0.98, 0.25, 0.02])[:, None, None]
    matched = match_color(image, (image * 1.3).clamp(0, 1), method)
    assert 0 <= matched.min() and matched.max() <= 1
    assert turned(matched, image)[:, 24:40, 24:40].max() < 8


# Strength, precision


@every_method
def test_strength_is_linear_from_the_image_itself(photos, method):
    drifted = cast(photos[:1])
    assert match_color(drifted, photos[:1], method, 0) is drifted
    full = match_color(drifted, photos[:1], method)
    for strength in (0.25, 0.5, 0.9):
        part = match_color(drifted, photos[:1], method, strength)
        assert torch.allclose(part, drifted + strength * (full - drifted), atol=1e-5)


@every_method
def test_an_image_that_is_its_own_reference_stays(photos, method):
    for images in (photos, chart()[0], torch.rand(1, 4, 33, 20), torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)):
        assert (match_color(images, images, method) - images).abs().max() <= 1e-5


@every_method
def test_nothing_is_rounded_to_eight_bits(photos, method):
    drifted = cast(photos[:1]) * 0.9 + 0.05
    other = drifted.clone()
    other[..., 100:140, 100:140] += 1e-4
    change = match_color(other, photos[:1], method) - match_color(drifted, photos[:1], method)
    assert 4e-5 < change[..., 101:139, 101:139].mean() < 2.5e-4
    ramp = torch.linspace(0.4, 0.4 + 1e-3, 256).expand(1, 3, 16, -1)  # a quarter of an 8-bit step
    assert (match_color(ramp, ramp + 0.1, method).diff(dim=3) > 0).float().mean() > 0.95


@every_method
@pytest.mark.parametrize("dtype, most", [(torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float64, 1e-4)])
def test_other_float_types_work_and_come_back(photos, method, dtype, most):
    matched = match_color(cast(photos[:1]).to(dtype), photos[:1].to(dtype), method)
    assert matched.dtype == dtype
    assert (matched.float() - match_color(cast(photos[:1]), photos[:1], method)).abs().mean() < most


# Alpha


def cut_out(image, seed=0):
    """`image` (1, 3, H, W) with a soft round alpha, and the same with other colors where alpha is 0."""
    side = image.shape[2]
    axis = torch.linspace(-1, 1, side)
    alpha = ((0.7 - (axis[:, None] ** 2 + axis**2).sqrt()) * 10 + 0.5).clamp(0, 1)[None, None]
    rubbish = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
    return torch.cat([image, alpha], 1), torch.cat([torch.where(alpha > 0, image, rubbish), alpha], 1)


@every_method
@pytest.mark.parametrize("side", [256, 64])
def test_alpha_is_carried_through_and_hidden_colors_have_no_say(photos, method, side):
    (clean, hidden), (reference, concealed) = cut_out(cast(photos[:1])), cut_out(degraded(photos[:1], ""), 1)
    step = 256 // side
    reference, concealed = reference[..., ::step, ::step], concealed[..., ::step, ::step]
    matched, other = match_color(clean, reference, method), match_color(hidden, concealed, method)
    assert torch.equal(matched[:, 3], clean[:, 3]) and torch.equal(other[:, 3], clean[:, 3])
    visible = (clean[:, 3:] > 0).expand(-1, 3, -1, -1)
    assert (matched[:, :3] - other[:, :3])[visible].abs().max() < 2e-6
    assert match_color(cast(photos[:1]), reference, method).shape[1] == 3  # alpha of the reference alone


@every_method
def test_colors_do_not_bleed_over_alpha_edges(method):
    inside, outside = torch.tensor([0.7, 0.4, 0.3])[:, None, None], torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    alpha = torch.zeros(1, 1, 96, 96)
    alpha[..., 24:72, 24:72] = 1
    truth = torch.where(alpha > 0, inside, outside)
    cast = torch.where(alpha > 0, 0.1, -0.5) * torch.tensor([1.0, -0.5, 0.3])[:, None, None]
    drifted = torch.cat([truth - cast, alpha], 1)
    for reference in (torch.cat([truth, alpha], 1), truth):
        matched = match_color(drifted.clamp(0, 1), reference, method)
        assert (matched[:, :3] - truth).abs()[..., 24:72, 24:72].max() < 1e-3


@every_method
def test_an_image_without_a_visible_pixel_stays(method):
    image = torch.cat([torch.rand(1, 3, 20, 20), torch.zeros(1, 1, 20, 20)], 1)
    assert torch.allclose(match_color(image, torch.rand(1, 3, 20, 20), method), image, atol=1e-5)


# Sizes


@every_method
def test_one_pixel_takes_the_references_color(method):
    pixel, color = torch.tensor([0.2, 0.5, 0.8])[None, :, None, None], torch.tensor([0.6, 0.3, 0.1])[None, :, None, None]
    for reference in (color, color.expand(-1, -1, 7, 9)):
        assert torch.allclose(match_color(pixel, reference, method), color, atol=1e-5)
    for shape in ((1, 9), (300, 1), (2, 2), (256, 256)):  # a constant image, and a reference of one pixel
        constant = pixel.expand(-1, -1, *shape)
        assert torch.allclose(match_color(constant, color, method), color.expand_as(constant), atol=1e-5)


@every_method
def test_a_constant_image_takes_the_mean_and_invents_nothing(photos, method):
    constant = torch.full((1, 3, 256, 256), 0.3)
    matched = match_color(constant, photos[:1], method)
    if method == "adain":
        assert (matched.mean((2, 3)) - photos[:1].mean((2, 3))).abs().max() < 0.01
    assert high_pass(matched).abs().max() < 0.02 and matched.isfinite().all()
    assert match_color(photos[:1], constant, method).isfinite().all()


@every_method
def test_references_of_other_sizes_give_nearly_the_same(photos, method):
    drifted = cast(photos[:1])
    same = match_color(drifted, photos[:1], method)
    for size in ((64, 64), (512, 384), (300, 100)):
        other = match_color(drifted, F.interpolate(photos[:1], size, mode="bilinear", antialias=True), method)
        assert other.shape == same.shape and error(other, same).max() < 3, size


@every_method
@pytest.mark.parametrize("shape", [(5, 3), (8, 400), (31, 64), (40, 40)])
def test_small_and_narrow_images_work(method, shape):
    truth = F.interpolate(torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(0)), shape, mode="bilinear")
    drifted = 0.9 * truth + torch.tensor([0.06, 0.0, 0.03])[:, None, None]
    assert error(match_color(drifted, truth, method), truth) < (8 if method == "lab" else 1.5) < error(drifted, truth)


@every_method
def test_a_batch_is_its_images_and_one_reference_serves_all(photos, method):
    drifted = cast(photos)
    for reference in (photos, photos[:1]):
        together = match_color(drifted, reference, method)
        alone = [match_color(p[None], reference[i % len(reference)][None], method) for i, p in enumerate(drifted)]
        assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@every_method
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(photos, method):
    there = match_color(cast(photos).cuda(), photos, method)
    assert there.is_cuda and (there.cpu() - match_color(cast(photos), photos, method)).abs().max() < 1e-4


# Refusals


@pytest.mark.parametrize(
    "image, reference, rest, sentence",
    [
        ((1, 2, 8, 8), (1, 3, 8, 8), (), "the image has 2 channels; give 3, or 4 with alpha."),
        ((1, 3, 8, 8), (1, 1, 8, 8), (), "the reference has 1 channels; give 3, or 4 with alpha."),
        ((3, 8, 8), (1, 3, 8, 8), (), "the image has the shape (3, 8, 8); give images of at least one pixel."),
        ((1, 3, 8, 8), (1, 3, 0, 8), (), "the reference has the shape (1, 3, 0, 8); give images of at least one pixel."),
        ((3, 3, 8, 8), (2, 3, 8, 8), (), "2 references for a batch of 3; give one for each image, or one for all."),
        ((1, 3, 8, 8), (2, 3, 8, 8), (), "2 references for a batch of 1; give one for each image, or one for all."),
        ((1, 3, 8, 8), (1, 3, 8, 8), ("hm",), "there is no method 'hm'; choose one of wavelet, adain, lab."),
        ((1, 3, 8, 8), (1, 3, 8, 8), ("lab", 1.5), "the strength is 1.5; give 0 to 1."),
        ((1, 3, 8, 8), (1, 3, 8, 8), ("lab", float("nan")), "the strength is nan; give 0 to 1."),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_sentence(image, reference, rest, sentence):
    with pytest.raises(ValueError) as refusal:
        match_color(torch.rand(image), torch.rand(reference), *rest)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(value):
    sound, broken = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    broken[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match="^image 2 of the image holds NaN or infinity; give one without.$"):
        match_color(broken, sound)
    with pytest.raises(ValueError, match="^image 2 of the reference holds NaN or infinity; give one without.$"):
        match_color(sound, broken)
