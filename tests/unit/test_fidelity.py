"""Fidelity to the degraded input: what the slider does to the clean estimate, and to a whole sampling."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.fidelity_guidance import LOW, fidelity_guidance
from comfyui_fluxir.fluxir_core.flow.rectified_flow import clean_estimate, euler, flux_sigmas

SLIDER = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
TIMES = (1.0, 0.7, 0.3, 0.02)


def latents(seed, *shape):
    return torch.randn(shape or (2, 16, 8, 8), generator=torch.Generator().manual_seed(seed))


def shares(difference, fidelity, t):
    """The share of `difference` between input and estimate that is gone at each of its places."""
    drawn = fidelity_guidance(torch.zeros_like(difference), difference, torch.full((len(difference),), t), fidelity)
    return drawn / difference


def checkerboard():
    rows = torch.arange(8)
    return ((rows[:, None] + rows) % 2 * 2.0 - 1).expand(1, 16, 8, 8)


def test_at_0_the_estimate_stays_and_at_1_it_is_the_input_bit_for_bit():
    clean, degraded = latents(0), latents(1)
    for t in TIMES:
        assert fidelity_guidance(clean, degraded, torch.full((2,), t), 0) is clean
        assert torch.equal(fidelity_guidance(clean, degraded, torch.full((2,), t), 1), degraded)


@pytest.mark.parametrize("t", TIMES)
def test_the_higher_the_slider_the_nearer_to_the_input_at_every_time(t):
    clean, degraded = latents(0), latents(1)
    drawn = [fidelity_guidance(clean, degraded, torch.full((2,), t), fidelity) for fidelity in SLIDER]
    distances = [(one - degraded).square().mean().item() for one in drawn]
    assert all(b < a for a, b in zip(distances, distances[1:])), distances


@pytest.mark.parametrize("fidelity", [0.05, 0.4, 0.95])
def test_early_steps_follow_the_input_more_than_late_ones_and_low_frequencies_more_than_detail(fidelity):
    low = [shares(torch.ones(1, 16, 8, 8), fidelity, t).mean().item() for t in TIMES]
    detail = [shares(checkerboard(), fidelity, t)[..., 3:5, 3:5].mean().item() for t in TIMES]
    assert low == sorted(low, reverse=True) and detail == sorted(detail, reverse=True)
    assert all(0 < fine < coarse < 1 for fine, coarse in zip(detail, low))


def test_where_input_and_estimate_differ_by_a_constant_it_is_fluxirs_guidance_turned_round():
    """v + w_g (v - v_LQ) with v_LQ = (z_t - z_LQ) / t, and w_g = -w."""
    z_t, velocity, t, fidelity = latents(0), latents(1), torch.tensor([0.3, 0.8]), 0.4
    clean = clean_estimate(z_t, velocity, t)
    degraded = clean + 0.7
    model = fidelity * t**2 / (t**2 + (1 - t) ** 2)
    w = (model / (model + LOW * (1 - fidelity))).reshape(-1, 1, 1, 1)
    guided = velocity - w * (velocity - (z_t - degraded) / t.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(fidelity_guidance(clean, degraded, t, fidelity), clean_estimate(z_t, guided, t), rtol=0, atol=1e-5)


def test_each_image_is_drawn_by_its_own_time():
    clean, degraded, t = latents(0), latents(1), torch.tensor([0.2, 0.9])
    together = fidelity_guidance(clean, degraded, t, 0.5)
    alone = [fidelity_guidance(clean[i : i + 1], degraded[i : i + 1], t[i : i + 1], 0.5) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_sampling_ends_nearer_to_the_input_the_higher_the_slider_and_on_it_at_1():
    """On data of one Gaussian, N(mean, 0.5^2), whose velocity is known."""
    mean, degraded, noise, scale = latents(2), latents(3), latents(4), 0.25

    def velocity(x, t, fidelity):
        at = t.reshape(-1, 1, 1, 1)
        spread = scale * (1 - at) ** 2 + at**2
        clean = mean + scale * (1 - at) / spread * (x - (1 - at) * mean)
        return (x - fidelity_guidance(clean, degraded, t, fidelity)) / at

    ends = [euler(lambda x, t: velocity(x, t, fidelity), noise, flux_sigmas(6)) for fidelity in SLIDER]
    distances = [(end - degraded).square().mean().sqrt().item() for end in ends]
    assert all(b < a for a, b in zip(distances, distances[1:])) and distances[-1] < 1e-6 < 0.1 < distances[-2], distances


def test_latents_with_a_time_axis_and_of_one_pixel_are_drawn_too():
    for shape in ((1, 16, 1, 8, 8), (1, 16, 1, 1), (1, 4, 1, 7)):
        clean, degraded = latents(0, *shape), latents(1, *shape)
        drawn = fidelity_guidance(clean, degraded, torch.tensor([0.5]), 0.5)
        assert drawn.shape == shape and (drawn - degraded).square().mean() < (clean - degraded).square().mean()


@pytest.mark.parametrize("fidelity", [-0.1, 1.01, float("nan")])
def test_a_fidelity_outside_0_to_1_is_refused(fidelity):
    with pytest.raises(ValueError, match=f"^the fidelity is {fidelity}; give 0 to 1.$"):
        fidelity_guidance(latents(0), latents(1), torch.ones(2), fidelity)
