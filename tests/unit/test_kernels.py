"""The kernels keep their laws: means, variances, limits."""

import math

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.kernels import (
    CPS,
    KERNELS,
    ODE,
    OU,
    FlowGRPO,
    Relabel,
    Renoise,
    Rotate,
    ZeroDrift,
    evolve_noise,
    log_snr,
    step_std,
)
from comfyui_fluxir.fluxir_core.flow.rectified_flow import flux_sigmas

VARIANCE, T, S = 0.2025, 0.6, 0.5
COUNT = 400_000


def gaussian_velocity(x, t, variance=VARIANCE):
    """The exact velocity when the data are N(0, variance)."""
    gain = (1 - t) * variance / ((1 - t) ** 2 * variance + t * t)
    return (x - gain * x) / t


@pytest.fixture(scope="module")
def at_t():
    generator = torch.Generator().manual_seed(0)
    std = math.sqrt((1 - T) ** 2 * VARIANCE + T * T)
    return std * torch.randn(COUNT, generator=generator), torch.randn(COUNT, generator=generator)


@pytest.mark.parametrize(
    "name, shift, expected", [("uniform", 0, (0.518, 0.322, 0.212, 0.122)), ("shifted", 0.63, (0.572, 0.396, 0.294, 0.195))]
)
def test_the_papers_sigmas(name, shift, expected):
    sigmas = flux_sigmas(25, shift)
    found = [step_std(sigmas[r - 1].double(), sigmas[r].double()).item() for r in (5, 10, 15, 20)]
    assert found == pytest.approx(expected, abs=6e-4)


def test_ou_with_root_two_is_the_sde_dpmsolver_step(at_t):
    x, z = at_t
    v = gaussian_velocity(x, T)
    h = (log_snr(S) - log_snr(T)).item()
    clean = x - T * v
    expected = S / T * math.exp(-h) * x + (1 - S) * -math.expm1(-2 * h) * clean + S * math.sqrt(-math.expm1(-2 * h)) * z
    torch.testing.assert_close(OU(math.sqrt(2))(x, v, T, S, z)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [OU(0), CPS(0), ZeroDrift(0), Rotate(0), FlowGRPO(0)], ids=lambda k: k.name)
def test_without_noise_every_kernel_is_euler(at_t, kernel):
    x, z = at_t
    v = gaussian_velocity(x, T)
    torch.testing.assert_close(kernel(x, v, T, S, z)[0], ODE()(x, v, T, S)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t, expected", [(1.0, 0.7**2 / (1 - 0.9)), (0.95, 0.7**2 * 0.95 / 0.05)])
def test_flow_grpo_takes_the_next_time_in_the_roots_denominator_only_and_only_at_1(t, expected):
    """Of its step x' = ... + g sqrt(t - s) z: g^2 = a^2 / (1 - s) from t = 1, a^2 t / (1 - t) after."""
    zero, z = torch.zeros(2), torch.tensor([1.0, -2.0])
    moved, _ = FlowGRPO(0.7)(zero, zero, t, 0.9, z)
    torch.testing.assert_close(moved, math.sqrt(expected * (t - 0.9)) * z)


@pytest.mark.parametrize("kernel", [Relabel(), Renoise()], ids=lambda k: k.name)
def test_relabel_and_renoise_land_on_the_marginal_of_their_new_time(kernel, at_t):
    """From an exact draw at s, moved by the identity (t = s), the new state has the mean and variance of p_t'."""
    generator = torch.Generator().manual_seed(1)
    mean, std = 0.7, math.sqrt((1 - S) ** 2 * VARIANCE + S * S)
    x = (1 - S) * mean + std * torch.randn(COUNT, generator=generator)
    # v chosen so that the Euler step from t = T lands on x exactly
    start = x.clone()
    new, time = kernel(start, torch.zeros_like(x), T, S, at_t[1])
    time = float(time)
    assert new.mean().item() == pytest.approx((1 - time) * mean, abs=4e-3)
    assert new.var().item() == pytest.approx((1 - time) ** 2 * VARIANCE + time * time, rel=0.01)
    assert time > S


@pytest.mark.parametrize("kernel", [OU(1), CPS(0.3), Rotate()], ids=lambda k: k.name)
def test_marginal_preserving_kernels_keep_the_noise_level(at_t, kernel):
    """Clean and noise estimates of a single point: the new noise is as strong as the step's label says."""
    _, z = at_t
    noise = torch.randn(COUNT, generator=torch.Generator().manual_seed(2))
    clean = torch.full_like(noise, 0.4)
    x, v = (1 - T) * clean + T * noise, noise - clean
    new, time = kernel(x, v, T, S, z)
    assert time == S
    assert new.mean().item() == pytest.approx((1 - S) * 0.4, abs=4e-3)
    assert new.std().item() == pytest.approx(S, rel=5e-3)


def test_zero_drift_obeys_the_variance_law():
    """Four default rounds multiply the final variance by 1 + sum sigma^2 / ((1 - s)^2 V + s^2): 1.959 for V = 0.2025."""
    sigmas = flux_sigmas(400, 0)
    x = torch.randn(COUNT, generator=torch.Generator().manual_seed(3))
    coarse = flux_sigmas(25, 0)
    rounds = {round(r * 16): step_std(coarse[r - 1].double(), coarse[r].double()) for r in (5, 10, 15, 20)}
    expected = 1 + sum(
        std.item() ** 2 / ((1 - s) ** 2 * VARIANCE + s * s) for std, s in ((rounds[i], sigmas[i].item()) for i in rounds)
    )
    assert expected == pytest.approx(1.959, abs=2e-3)
    for i in range(400):
        t, s = sigmas[i].item(), sigmas[i + 1].item()
        x = x + (s - t) * gaussian_velocity(x, t)
        if i + 1 in rounds:
            x = x + rounds[i + 1].float() * torch.randn(COUNT, generator=torch.Generator().manual_seed(i))
    assert x.var().item() / VARIANCE == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("t, s", [(1.0, 0.96), (1.0, 1e-4), (0.04, 1e-6), (0.5, 0.4999999)])
@pytest.mark.parametrize("kernel", [kind() for kind in KERNELS.values()], ids=lambda k: k.name)
def test_the_ends_of_the_path_give_no_nan(kernel, t, s):
    x, v, z = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    for time in (t, torch.full((100,), t)):
        new, after = kernel(x, v, time, s, z)
        assert new.isfinite().all() and new.dtype == torch.float32
        assert torch.as_tensor(after).isfinite().all() and s <= torch.as_tensor(after).max() <= 1


def test_evolved_noise_stays_standard_and_beta_one_is_fresh():
    first, second = torch.randn(2, COUNT, generator=torch.Generator().manual_seed(4))
    assert evolve_noise(first, 0.6, second).std().item() == pytest.approx(1, abs=5e-3)
    assert torch.equal(evolve_noise(first, 1.0, second), second)
