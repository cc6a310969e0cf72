"""The verifiers that need no weights, and the default ensemble."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_blur, gaussian_noise, jpeg
from comfyui_fluxir.fluxir_core.verify.aggregate import rank
from comfyui_fluxir.fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble
from comfyui_fluxir.fluxir_core.verify.fidelity import Consistency, downsampled_psnr
from comfyui_fluxir.fluxir_core.verify.held_out import held_out_for
from comfyui_fluxir.fluxir_core.verify.niqe import NIQE, _asymmetric_gaussian
from comfyui_fluxir.fluxir_core.verify.piqe import PIQE
from comfyui_fluxir.fluxir_core.verify.statistics import CoherentGradient, SpectralSlope
from comfyui_fluxir.fluxir_core.verify.vetoes import vetoes
from comfyui_fluxir.training.miniature.scenes import TRAINING_PHOTOS, build_bank, load_photo
from comfyui_fluxir.training.studies.fit_niqe import fit

WEIGHTLESS = [NIQE(), PIQE(), CoherentGradient(), SpectralSlope(), Consistency(), DefaultEnsemble()]
LEFT_OUT = ("astronaut", "coffee", "motorcycle_left")


def tensor(pixels):
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def noisy(image, sigma):
    return gaussian_noise(image, sigma, torch.Generator().manual_seed(0))


SEVERITY = {
    "blur": lambda p: [gaussian_blur(p, sigma) for sigma in (0, 0.7, 1.2, 2, 3, 4.5)],
    "noise": lambda p: [noisy(p, sigma) for sigma in (0, 5, 10, 20, 35, 50)],
    "jpeg": lambda p: [p, *(jpeg(p, quality) for quality in (80, 50, 30, 18, 8))],
}


@pytest.fixture(scope="module")
def scenes():
    return [tensor(pixels) for pixels in build_bank(5, 3, 192, seed=3)[0]]


@pytest.fixture(scope="module")
def left_out_niqe():
    """NIQE fitted without the three photos it is tested on, and those photos."""
    model, _ = fit([load_photo(name) for name in TRAINING_PHOTOS if name not in (*LEFT_OUT, "motorcycle_right")])
    return NIQE(model), [tensor(load_photo(name)[:384, :384]) for name in LEFT_OUT]


def agreement(verifier, images, degradation):
    """Mean Spearman correlation of the score with minus the severity."""
    found = [rank(verifier(torch.stack(SEVERITY[degradation](p)))) for p in images]
    order = rank(-torch.arange(6.0))
    return torch.stack([torch.corrcoef(torch.stack([f, order]))[0, 1] for f in found]).mean().item()


@pytest.mark.parametrize("degradation, least", [("blur", 0.85), ("noise", 0.92), ("jpeg", 0.75)])
def test_niqe_falls_with_severity_on_photos_it_was_not_fitted_on(left_out_niqe, degradation, least):
    assert agreement(*left_out_niqe, degradation) > least


def test_niqes_spread_features_are_scales():
    """Of exp(-(|x| / scale)^shape): a Gaussian's scale is sqrt(2) standard deviations, a Laplacian's its mean deviation."""
    generator = torch.Generator().manual_seed(0)
    normal, sides = torch.randn(200_000, generator=generator), torch.where(torch.rand(200_000, generator=generator) < 0.5, -1, 1)
    laplacian = sides * -torch.rand(200_000, generator=generator).clamp(min=1e-9).log()
    found = _asymmetric_gaussian(torch.stack([3 * normal, 0.5 * laplacian]))
    torch.testing.assert_close(found[0], torch.tensor([2.0, 0, 3 * 2**0.5, 3 * 2**0.5]), atol=0.04, rtol=0.02)
    torch.testing.assert_close(found[1], torch.tensor([1.0, 0, 0.5, 0.5]), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("degradation, least", [("blur", 0.95), ("noise", 0.85), ("jpeg", 0.9)])
def test_piqe_falls_with_severity(left_out_niqe, degradation, least):
    assert agreement(PIQE(), left_out_niqe[1], degradation) > least


@pytest.mark.parametrize(
    "searched, held_out",
    [
        (DefaultEnsemble(), "piqe"),
        (Ensemble([Ensemble([PIQE()], name="inner"), CoherentGradient()]), "niqe"),
        (Ensemble([PIQE(), DefaultEnsemble()]), None),
    ],
)
def test_the_held_out_verifier_is_none_of_those_searched_on(searched, held_out):
    assert getattr(held_out_for(searched), "name", None) == held_out


@pytest.mark.parametrize("degradation, least", [("blur", 0.95), ("noise", 0.5), ("jpeg", 0.6)])
def test_coherent_gradient_falls_with_severity(scenes, degradation, least):
    assert agreement(CoherentGradient(), scenes, degradation) > least


@pytest.mark.parametrize("degradation, least", [("blur", 0.9), ("noise", 0.35)])
def test_the_spectrum_leaves_the_natural_slope_with_severity(scenes, degradation, least):
    assert agreement(SpectralSlope(), scenes, degradation) > least


def test_the_default_picks_no_hack(scenes):
    grid = torch.zeros(192, 192)
    grid[::8] = grid[:, ::8] = 0.15
    for index, clean in enumerate(scenes):
        given = noisy(gaussian_blur(clean, 1.5), 10)
        gray = clean.mean(0)
        hacks = [
            clean + 4 * (clean - gaussian_blur(clean, 1.5)),  # oversharpened
            noisy(clean, 25),  # noise for texture
            clean + grid,
            scenes[(index + 1) % len(scenes)],  # another image
        ]
        saturated = gray + 2.5 * (clean - gray)
        if (saturated - clean).abs().mean() > 0.01:  # one scene is gray
            hacks.append(saturated)
        scores = DefaultEnsemble()(torch.stack([clean, given, *hacks]), given)
        assert scores[0] > scores[2:].max() and scores[1] > scores[2:].max()


def test_fidelity_is_a_hinge(scenes):
    given = scenes[0]
    near, far = given + 0.01, given.flip(2)
    assert downsampled_psnr(near[None], given) > 33 > downsampled_psnr(far[None], given)
    closest, close, distant = Consistency()(torch.stack([given, near, far]), given)
    assert closest == close == 0 and distant < -1


def test_fidelity_compares_images_of_different_sizes(scenes):
    small = torch.nn.functional.interpolate(scenes[0][None], (96, 96), mode="area")
    assert Consistency()(scenes[0][None], small) == 0


def test_pooled_batches_rank_as_one(scenes):
    ensemble, given = DefaultEnsemble(), scenes[0]
    images = torch.stack(SEVERITY["blur"](given))
    halves = [ensemble.measure(half, given) for half in images.split(3)]
    pooled = ensemble.combine({name: torch.cat([half[name] for half in halves]) for name in halves[0]})
    torch.testing.assert_close(pooled, ensemble(images, given))


@pytest.mark.parametrize("verifier", WEIGHTLESS, ids=lambda v: v.name)
def test_nan_scores_last_and_nothing_else_is_disturbed(verifier, scenes):
    broken = scenes[1].clone()
    broken[0, 3, 3] = float("nan")
    scores = verifier(torch.stack([scenes[0], broken]), scenes[0])
    assert scores[1] == -torch.inf and scores[0].isfinite()
    if not isinstance(verifier, DefaultEnsemble):  # whose values are ranks inside the cohort
        torch.testing.assert_close(scores[:1], verifier(scenes[0][None], scenes[0]))


@pytest.mark.parametrize("verifier", WEIGHTLESS, ids=lambda v: v.name)
@pytest.mark.parametrize("shape", [(3, 96, 96), (1, 70, 101), (4, 64, 64), (3, 1, 1), (3, 16, 9)])
def test_constant_gray_tiny_and_odd_images_have_scores(verifier, shape):
    images = torch.stack([torch.full(shape, 0.5), torch.rand(shape, generator=torch.Generator().manual_seed(0))])
    scores = verifier(images, images[0])
    assert scores.shape == (2,) and not scores.isnan().any() and scores[0].isfinite()


@pytest.mark.parametrize("verifier", WEIGHTLESS, ids=lambda v: v.name)
def test_scores_are_deterministic_and_half_precision_is_read(verifier, scenes):
    images = torch.stack(scenes[:3])
    assert torch.equal(verifier(images, scenes[0]), verifier(images, scenes[0]))
    assert verifier(images.half(), scenes[0].half()).dtype == torch.float32


def test_the_degraded_input_is_never_vetoed(scenes):
    for degrade in (lambda p: noisy(p, 50), lambda p: jpeg(p, 8), lambda p: gaussian_blur(p, 3)):
        for image in scenes:
            given = degrade(image)
            assert not any(refused.any() for refused in vetoes(given[None], given).values())


def test_all_vetoed_leaves_no_finite_score():
    assert (DefaultEnsemble()(torch.full((2, 3, 64, 64), float("nan"))) == -torch.inf).all()


def test_wrong_shapes_and_a_missing_reference_are_refused(scenes):
    with pytest.raises(ValueError, match=r"\(3, 192, 192\); give \(B, 3, H, W\)"):
        NIQE()(scenes[0])
    with pytest.raises(ValueError, match="connect the degraded input"):
        Consistency()(scenes[0][None])


def test_niqes_file_describes_itself_and_names_only_training_photos():
    from comfyui_fluxir.fluxir_core.verify.niqe import MODEL_FILE
    from safetensors import safe_open

    with safe_open(MODEL_FILE, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "fluxir-niqe-1" and set(metadata["photos"].split(",")) <= set(TRAINING_PHOTOS)
