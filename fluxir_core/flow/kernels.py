"""Kernels: how a step t -> s, or a perturbation of the state at s, adds noise. s < t, both times in [0, 1], 1 is noise.

A kernel is called with x at t and its velocity v there (float32, (..., C, H, W)), t (a tensor that broadcasts against x, or
a float), s (float) and standard normal z of x's shape. It returns (x', t'): the new state and its time, a float or a tensor
like t. `keeps_time` says whether t' is s; `back` is 1 where the path is walked again from the grid point before s, else 0.

Freezing the clean estimate x0 = x - t v over a step makes the noise estimate e = x + (1 - t) v an Ornstein-Uhlenbeck process,
so most kernels are x_s = (1 - s) x0 + s (c e + sqrt(1 - c^2) z) with c of their own: c = 1 is the ODE, c = 0 fresh noise.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch


def _exact(t):
    """A time, tensor or float, as float64 on the CPU: not every device knows float64."""
    return t.cpu().double() if torch.is_tensor(t) else torch.tensor(t, dtype=torch.float64)


def log_snr(t):
    """lambda(t) = ln((1 - t) / t); minus infinity at t = 1, infinity at 0. Takes a tensor or a float, returns float64."""
    t = _exact(t)
    return torch.log((1 - t) / t)


def step_std(t, s):
    """Standard deviation of the noise that sde-dpmsolver++ adds from t to s: s sqrt(1 - exp(-2 h)), h = lambda(s) - lambda(t)."""
    return s * torch.sqrt(-torch.expm1(-2 * (log_snr(s) - log_snr(t))))


def _mix(x, v, t, s, c, z):
    """(1 - s) x0 + s (c e + sqrt(1 - c^2) z), c float64 of t's shape."""
    keep, renew = (s * c).float(), (s * torch.sqrt(1 - c * c)).float()
    return (1 - s) * (x - t * v) + keep.to(x) * (x + (1 - t) * v) + renew.to(x) * z


class Kernel(Protocol):
    """What a search may step by; see the module's first lines."""

    @property
    def name(self) -> str: ...

    @property
    def back(self) -> int: ...

    @property
    def keeps_time(self) -> bool: ...

    def __call__(self, x, v, t, s, z) -> tuple[torch.Tensor, Any]: ...


@dataclass(frozen=True)
class ODE:
    """The Euler step x + (s - t) v; no noise."""

    name = "ode"
    back = 0
    keeps_time = True

    def __call__(self, x, v, t, s, z=None):
        return x + (s - t) * v, s


@dataclass(frozen=True)
class OU:
    """g = a sqrt(t / (1 - t)), hence c = exp(-a^2 h / 2). a = sqrt(2) is first-order sde-dpmsolver++."""

    a: float = 1.0
    name = "ou"
    back = 0
    keeps_time = True

    def __call__(self, x, v, t, s, z):
        c = torch.exp(-0.5 * self.a**2 * (log_snr(s) - log_snr(t)))
        return _mix(x, v, t, s, c, z), s


@dataclass(frozen=True)
class CPS:
    """Coefficients-preserving sampling: c = cos(eta pi / 2), the same at every step."""

    eta: float = 0.5
    name = "cps"
    back = 0
    keeps_time = True

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise ValueError(f"cps: eta is {self.eta}; use a value from 0, the ODE, to 1, fresh noise.")

    def __call__(self, x, v, t, s, z):
        c = torch.tensor(math.cos(self.eta * math.pi / 2), dtype=torch.float64)
        return _mix(x, v, t, s, c, z), s


@dataclass(frozen=True)
class FlowGRPO:
    """One Euler-Maruyama step of the reverse SDE with g = a sqrt(t / (1 - t)) (Flow-GRPO).

    From t = 1 the root's denominator alone is taken at s, as in its public code: g^2 = a^2 / (1 - s).
    """

    a: float = 0.7
    name = "flow_grpo"
    back = 0
    keeps_time = True

    def __call__(self, x, v, t, s, z):
        t = _exact(t)
        g2, step = self.a**2 * t / (1 - torch.where(t >= 1, _exact(s), t)), t - s
        drift_x = (1 - g2 * step / (2 * t)).float().to(x)
        drift_v = ((1 + g2 * (1 - t) / (2 * t)) * step).float().to(x)
        return drift_x * x - drift_v * v + torch.sqrt(g2 * step).float().to(x) * z, s


@dataclass(frozen=True)
class ZeroDrift:
    """The paper's perturbation: x_s + m sigma z with the label s unchanged, sigma of `step_std` (ResFlow-Tuner).

    The SDE's drift is set to zero and its diffusion kept, so the state holds more noise than its label says: in a direction
    of data variance V the final variance grows by sigma^2 / ((1 - s)^2 V + s^2) each time.
    """

    m: float = 1.0
    name = "zero_drift"
    back = 0
    keeps_time = True

    def __call__(self, x, v, t, s, z):
        return x + (s - t) * v + (self.m * step_std(t, s)).float().to(x) * z, s


@dataclass(frozen=True)
class Relabel:
    """As `ZeroDrift`, then brought to the time whose noise it holds: exact, and no further model call.

    rho = sqrt(s^2 + sigma^2), k = 1 / (1 - s + rho): x' = k (x_s + sigma z) at t' = k rho.
    """

    m: float = 1.0
    name = "relabel"
    back = 0
    keeps_time = False

    def __call__(self, x, v, t, s, z):
        std = self.m * step_std(t, s)
        rho = torch.sqrt(s**2 + std**2)
        scale = 1 / (1 - s + rho)
        return scale.float().to(x) * (x + (s - t) * v + std.float().to(x) * z), (scale * rho).float().to(x)


@dataclass(frozen=True)
class Rotate:
    """(1 - s) x0 + s (sqrt(1 - sigma^2 / s^2) e + (sigma / s) z), sigma of `step_std` times m, at most s."""

    m: float = 1.0
    name = "rotate"
    back = 0
    keeps_time = True

    def __call__(self, x, v, t, s, z):
        share = (self.m * step_std(t, s) / s).clamp(max=1)
        return _mix(x, v, t, s, torch.sqrt(1 - share**2), z), s


@dataclass(frozen=True)
class Renoise:
    """The state at s brought back to t: alpha x_s + sqrt(t^2 - alpha^2 s^2) z, alpha = (1 - t) / (1 - s). Costs a step more."""

    name = "renoise"
    back = 1
    keeps_time = False

    def __call__(self, x, v, t, s, z):
        alpha = (1 - t) / (1 - s)
        spread = torch.as_tensor(t**2 - alpha**2 * s**2, dtype=x.dtype, device=x.device).clamp(min=0).sqrt()
        return alpha * (x + (s - t) * v) + spread * z, t


KERNELS = {kernel.name: kernel for kernel in (ODE, OU, CPS, FlowGRPO, ZeroDrift, Relabel, Rotate, Renoise)}
"""Kernel classes by name."""


def check_keeps_time(name, kernel):
    """Raises ValueError where `kernel` cannot move a population that walks the grid in step."""
    if not kernel.keeps_time:
        raise ValueError(
            f"{name}: the kernel {kernel.name} leaves the sigma grid; use ode, ou, cps, flow_grpo, zero_drift or rotate."
        )


def evolve_noise(noise, beta, z):
    """`evo_xT`: sqrt(1 - beta^2) noise + beta z, on the initial noise only; beta 1 is a fresh start."""
    return math.sqrt(1 - beta * beta) * noise + beta * z
