"""A Gaussian mixture whose velocity is known exactly: the proving ground of the searches."""

import math

import torch


class GaussianMixture:
    """Data distribution of equal Gaussians of variance `variance` around `components` random means in `dims` dimensions.

    The data have unit variance in every direction, about; everything is float32 except where named.
    """

    def __init__(self, dims=16, components=8, variance=0.2025, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.variance = variance
        self.means = math.sqrt(1 - variance) * torch.randn(components, dims, generator=generator)
        self.mean = self.means.mean(0)
        # What a degraded image leaves open is detail, not content: rewards look across the means, not along them.
        basis, _ = torch.linalg.qr((self.means - self.mean).T)
        directions = torch.randn(2, dims, generator=generator)
        detail = directions - directions @ basis @ basis.T
        second = torch.randn(2, dims, generator=generator)
        self.bend_directions = second - second @ basis @ basis.T
        self.reward_direction = detail[0]
        self.held_out_direction = detail[0] + 0.25 * detail[1]
        spread = self.means - self.mean
        self.covariance = spread.T @ spread / components + variance * torch.eye(dims)

    def _responsibilities(self, x, t):
        """(…, K) posterior probabilities of the components at time t (…,), in float64."""
        spread = ((1 - t) ** 2 * self.variance + t**2).double()
        distance = (x.double()[..., None, :] - (1 - t).double()[..., None, None] * self.means.double()).square().sum(-1)
        return torch.softmax(-distance / (2 * spread[..., None]), -1)

    def velocity(self, x, t):
        """The exact E[x1 - x0 | x_t = x] for x (rows, dims) and t (rows,) in (0, 1]."""
        share = self._responsibilities(x, t)
        t = t.double()[:, None]
        gain = (1 - t) * self.variance / ((1 - t) ** 2 * self.variance + t**2)
        mean = share @ self.means.double()
        clean = mean + gain * (x.double() - (1 - t) * mean)
        return ((x.double() - clean) / t).float()

    def sample(self, count, t=0.0, seed=0):
        """(count, dims) exact draws of the marginal at time t."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(len(self.means), (count,), generator=generator)
        draws = torch.randn(2, count, self.means.shape[1], generator=generator)
        return (1 - t) * (self.means[which] + math.sqrt(self.variance) * draws[0]) + t * draws[1]

    def log_density(self, x):
        """log p of data points x (rows, dims): (rows,)."""
        distance = (x[:, None] - self.means).square().sum(-1)
        dims = x.shape[1]
        return (
            torch.logsumexp(-distance / (2 * self.variance), 1)
            - math.log(len(self.means))
            - dims / 2 * math.log(2 * math.pi * self.variance)
        )

    def _standardised(self, x, direction):
        std = (direction @ self.covariance @ direction).sqrt()
        return (x - self.mean) @ direction / std

    def reward(self, x):
        """What a search may look at: a projection, with mean 0 and variance 1 over the data: (rows,)."""
        return self._standardised(x, self.reward_direction)

    def curved_reward(self, x):
        """A reward that is not linear: minus the squared distance of two projections from 1.5 and -1.5: (rows,)."""
        return self._curved(x, self.reward_direction, self.bend_directions[0])

    def curved_held_out(self, x):
        """As `curved_reward`, along directions near its own."""
        return self._curved(x, self.held_out_direction, self.bend_directions[0] + 0.25 * self.bend_directions[1])

    def _curved(self, x, first, second):
        return -((self._standardised(x, first) - 1.5) ** 2) - (self._standardised(x, second) + 1.5) ** 2

    def held_out(self, x):
        """A projection near the reward's, never searched on; mean 0 and variance 1 over the data: (rows,)."""
        return self._standardised(x, self.held_out_direction)
