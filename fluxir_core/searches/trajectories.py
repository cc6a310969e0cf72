"""Trajectories along the sigma grid that remember the states they come back to."""

import torch

from ..flow.rectified_flow import broadcast
from .selectors import take


class Trajectories:
    """n members for each of B images, walking the grid in step; no point is ever evaluated twice.

    states: {grid index: (x (n, B, ...), t (n, B))}; velocities: {grid index: v}. A state's own time may differ from the
    grid's (see `kernels.Relabel`). kept: the grid indices that are come back to; of the others only the last is remembered,
    which is why 15 members of 25 steps are 30 latents and not 750.
    """

    def __init__(self, search, noise, states, kept, velocities=None):
        self.search, self.noise, self.states, self.kept, self.velocities = search, noise, states, kept, velocities or {}

    @classmethod
    def start(cls, search, noise, kept):
        x = search.start(noise)
        return cls(search, noise, {0: (x, search.times(x, 0))}, kept)

    def velocity(self, index):
        """v at grid `index`, evaluated when it is first asked for."""
        if index not in self.velocities:
            self.velocities[index] = self.search.velocity(*self.reach(index))
        return self.velocities[index]

    def reach(self, index):
        """The state at grid `index`, by Euler steps from the last one known: (x, t)."""
        last = max(self.states)
        for here in range(last, index):
            x, t = self.states[here]
            following = self.search.times(x, here + 1)
            v = self.velocity(here)
            self.states[here + 1] = x + times_like(following - t, x) * v, following
            if here not in self.kept:
                del self.states[here], self.velocities[here]
        return self.states[index]

    def clean_estimate(self, index):
        """x - t v at grid `index`; at the end of the grid the state itself."""
        x, t = self.reach(index)
        return x if index == self.search.steps else x - times_like(t, x) * self.velocity(index)

    def step(self, kernel, index, z):
        """`kernel` from grid `index` - 1 to `index`: (x', t' (n, B))."""
        x, t = self.reach(index - 1)
        x, time = kernel(x, self.velocity(index - 1), times_like(t, x), self.search.sigmas[index], z)
        if torch.is_tensor(time):
            return x, time.flatten(2)[..., 0]
        return x, self.search.times(x, index)

    def take(self, index):
        """The members at `index` (m, B), each image choosing for itself."""
        states = {i: (take(x, index), take(t, index)) for i, (x, t) in self.states.items()}
        velocities = {i: take(v, index) for i, v in self.velocities.items()}
        return Trajectories(self.search, take(self.noise, index), states, self.kept, velocities)

    @staticmethod
    def join(first, second):
        """All members of both, with what is known of both."""
        for trajectories in (first, second):  # behind an exact estimate one may stand a step before the other, its velocity known
            trajectories.reach(max(*first.states, *second.states))
        states = {
            i: tuple(torch.cat(pair) for pair in zip(first.states[i], second.states[i]))
            for i in first.states.keys() & second.states.keys()
        }
        known = first.velocities.keys() & second.velocities.keys()
        velocities = {i: torch.cat([first.velocities[i], second.velocities[i]]) for i in known}
        return Trajectories(first.search, torch.cat([first.noise, second.noise]), states, first.kept, velocities)


def times_like(t, x):
    """t (n, B) so that it multiplies x (n, B, ...)."""
    return broadcast(t, x.flatten(0, 1)).unflatten(0, t.shape)
