"""Trajectories along the sigma grid that remember the states they come back to."""

import torch

from ..flow.rectified_flow import broadcast
from .selectors import take


class Paths:
    """n members for each of B pictures, walking the grid in step; no point is ever evaluated twice.

    states: {grid index: (x (n, B, ...), t (n, B))}; velocities: {grid index: v}. A state's own time may differ from the
    grid's (see `kernels.Relabel`). kept: the grid indices that are come back to; of the others only the last is remembered,
    which is why 15 members of 25 steps are 30 latents and not 750.
    """

    def __init__(self, run, noise, states, kept, velocities=None):
        self.run, self.noise, self.states, self.kept, self.velocities = run, noise, states, kept, velocities or {}

    @classmethod
    def start(cls, run, noise, kept):
        x = run.start(noise)
        return cls(run, noise, {0: (x, run.times(x, 0))}, kept)

    def velocity(self, index):
        """v at grid `index`, evaluated when it is first asked for."""
        if index not in self.velocities:
            self.velocities[index] = self.run.velocity(*self.reach(index))
        return self.velocities[index]

    def reach(self, index):
        """The state at grid `index`, by Euler steps from the last one known: (x, t)."""
        last = max(self.states)
        for here in range(last, index):
            x, t = self.states[here]
            following = self.run.times(x, here + 1)
            v = self.velocity(here)
            self.states[here + 1] = x + _spread(following - t, x) * v, following
            if here not in self.kept:
                del self.states[here], self.velocities[here]
        return self.states[index]

    def clean_estimate(self, index):
        """x - t v at grid `index`; at the end of the grid the state itself."""
        x, t = self.reach(index)
        return x if index == self.run.steps else x - _spread(t, x) * self.velocity(index)

    def step(self, kernel, index, z):
        """`kernel` from grid `index` - 1 to `index`: (x', t' (n, B))."""
        x, t = self.reach(index - 1)
        x, time = kernel(x, self.velocity(index - 1), _spread(t, x), self.run.sigmas[index], z)
        if torch.is_tensor(time):
            return x, time.flatten(2)[..., 0]
        return x, self.run.times(x, index)

    def take(self, index):
        """The members at `index` (m, B), each picture choosing for itself."""
        states = {i: (take(x, index), take(t, index)) for i, (x, t) in self.states.items()}
        velocities = {i: take(v, index) for i, v in self.velocities.items()}
        return Paths(self.run, take(self.noise, index), states, self.kept, velocities)

    @staticmethod
    def join(first, second):
        """All members of both, with what is known of both."""
        for paths in (first, second):  # behind an exact estimate one may stand a step before the other, its velocity known
            paths.reach(max(*first.states, *second.states))
        states = {
            i: tuple(torch.cat(pair) for pair in zip(first.states[i], second.states[i]))
            for i in first.states.keys() & second.states.keys()
        }
        known = first.velocities.keys() & second.velocities.keys()
        velocities = {i: torch.cat([first.velocities[i], second.velocities[i]]) for i in known}
        return Paths(first.run, torch.cat([first.noise, second.noise]), states, first.kept, velocities)


def _spread(t, x):
    """t (n, B) so that it multiplies x (n, B, ...)."""
    return broadcast(t, x.flatten(0, 1)).unflatten(0, t.shape)
