"""Cost-aware schedules: what large steps along a trajectory cost, and the cheapest few (FLUX-IR, arXiv 2410.04811)."""

import torch


def jump_costs(states, velocities, sigmas):
    """C(i, j) = (t_i - t_j) rms[v(z_i, t_i) - (z_i - z_j) / (t_i - t_j)]: how far one Euler step from z_i misses z_j.

    From one fine trajectory: states (N + 1, B, ...), velocities (N, B, ...), sigmas (N + 1,), falling. The rms is over a
    image's values, the mean over the B images. Returns (N + 1, N + 1) float64, infinite where j is not after i.
    """
    last = len(sigmas) - 1
    costs = torch.full((last + 1, last + 1), torch.inf, dtype=torch.float64)
    for i in range(last):
        steps = (sigmas[i] - sigmas[i + 1 :]).to(states).reshape(-1, *[1] * (states.ndim - 1))
        costs[i, i + 1 :] = _rms(states[i] - steps * velocities[i] - states[i + 1 :]).mean(1)
    return costs


def _rms(errors):
    """(J, B, ...) -> (J, B)."""
    return errors.double().flatten(2).square().mean(2).sqrt()


def optimal_schedule(costs, steps, start=0):
    """The cheapest `steps` jumps from `start` to the end of the grid: grid indices, `steps` + 1 of them.

    Dynamic programming: D[k][j] = min over i < j of D[k - 1][i] + C[i][j], traced back from D[steps][N]; `costs`
    (N + 1, N + 1) are as `jump_costs` makes them. Each cost is how far a jump leads off the trajectory, so what is
    minimized bounds the sum of these deviations. Raises ValueError when fewer steps are left from `start`.
    """
    last = len(costs) - 1
    if not 1 <= steps <= last - start:
        raise ValueError(f"optimal_schedule: {steps} steps on a grid of {last - start}; use 1 to {last - start}.")
    best, origins = torch.full((last + 1,), torch.inf, dtype=torch.float64), []
    best[start] = 0
    for _ in range(steps):
        best, origin = (best[:, None] + costs).min(0)
        origins.append(origin)
    indices = [last]
    for origin in reversed(origins):
        indices.append(int(origin[indices[-1]]))
    return indices[::-1]


def schedule_cost(costs, indices):
    """What `optimal_schedule` minimizes, for any `indices`."""
    return sum(costs[i, j].item() for i, j in zip(indices, indices[1:]))
