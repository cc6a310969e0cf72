"""The rectified-flow path, FluxIR's timesteps and the Euler sampler."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import clean_estimate, euler, flux_sigmas, interpolate, sample_timesteps


def test_the_true_velocity_leads_back_to_the_clean_latent():
    z0, z1, t = torch.randn(3, 4, 8), torch.randn(3, 4, 8), torch.tensor([0.0, 0.4, 1.0])
    torch.testing.assert_close(clean_estimate(interpolate(z0, z1, t), z1 - z0, t), z0)


def test_timesteps_start_and_end_sampling_with_the_papers_probability():
    """Equations 5 and 6: t is 0, and 1, with probability epsilon / (1 + 2 epsilon) = 1 / 22 each."""
    t = sample_timesteps(200_000, generator=torch.Generator().manual_seed(0))
    assert (t == 1).float().mean().item() == pytest.approx(1 / 22, rel=0.03)
    assert (t == 0).float().mean().item() == pytest.approx(1 / 22, rel=0.03)
    inside = t[(t > 0) & (t < 1)]
    assert inside.mean().item() == pytest.approx(0.5, abs=0.005)
    assert inside.var().item() == pytest.approx(1 / 12, rel=0.02)


def test_without_epsilon_the_start_is_almost_never_trained():
    t = sample_timesteps(10_000, epsilon=0, generator=torch.Generator().manual_seed(0))
    assert (t == 1).sum() == 0


def test_sigmas_are_the_uniform_grid_under_fluxs_shift():
    torch.testing.assert_close(flux_sigmas(4, shift=0), torch.tensor([1, 0.75, 0.5, 0.25, 0]))
    shifted = flux_sigmas(2, shift=1.15)
    e = torch.tensor(1.15).exp()
    torch.testing.assert_close(shifted, torch.stack([torch.tensor(1.0), e / (e + 1), torch.tensor(0.0)]))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps is 0; use at least 1"):
        flux_sigmas(0)


def test_euler_is_exact_on_a_straight_path_and_calls_the_model_once_a_step():
    z0, z1, calls = torch.randn(2, 3), torch.randn(2, 3), []

    def velocity(x, sigma):
        calls.append(sigma.tolist())
        return z1 - z0

    torch.testing.assert_close(euler(velocity, z1, flux_sigmas(5)), z0)
    assert len(calls) == 5 and calls[0] == [1.0, 1.0]
