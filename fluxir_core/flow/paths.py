"""Trajectories along the sigma grid that remember the states they come back to, and look-aheads on them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .path import broadcast
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


@dataclass(frozen=True)
class Native:
    """The paper's MSPDE: `steps` steps of the sampler's own grid, then the clean estimate. 0 steps is Tweedie's estimate.

    The calls lie on the path itself: whoever survives has made the steps it would have made anyway.
    """

    steps: int = 0

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"Native: steps is {self.steps}; use at least 0.")

    def __call__(self, paths, index):
        return paths.clean_estimate(min(index + self.steps, paths.run.steps))

    incumbent_cost = 0
    """Model calls a surviving member pays beyond those of its own path."""

    def cost(self, index, steps):
        """Model calls a new member pays at grid `index` of a grid of `steps` steps."""
        return min(self.steps + 1, steps - index)

    def walked(self, index, steps):
        """Grid points whose velocity a member knows after a look from `index`."""
        return min(index + self.steps + 1, steps)

    def exact(self, index, steps):
        """Whether the estimate is the final state."""
        return index + self.steps + 1 >= steps


TWEEDIE = Native(0)
FULL = Native(10**6)


@dataclass(frozen=True)
class Coarse:
    """`calls` large Euler steps straight to 0, the first from the state's own velocity."""

    calls: int = 3

    def __post_init__(self):
        if self.calls < 1:
            raise ValueError(f"Coarse: calls is {self.calls}; use at least 1.")

    def __call__(self, paths, index):
        x, t = paths.reach(index)
        v = paths.velocity(index)
        for call in range(self.calls):
            if call:
                v = paths.run.velocity(x, t * (1 - call / self.calls))
            x = x - _spread(t / self.calls, x) * v
        return x

    @property
    def incumbent_cost(self):
        return self.calls - 1

    def cost(self, index, steps):
        return self.calls

    def walked(self, index, steps):
        return index + 1

    def exact(self, index, steps):
        return False


@dataclass(frozen=True)
class Student:
    """A faster model finishes every member in steps of its own: those of `sigmas`, falling to 0, below the member's time.

    `finish(x, sigmas, batch)` takes rows (n * batch, ...) at sigmas[0], candidate by candidate, to clean latents. Its calls
    are not the searched model's: they are counted as `Run.student_calls`.
    """

    finish: Callable
    sigmas: tuple

    def __post_init__(self):
        if not self.sigmas or self.sigmas[-1] != 0:
            raise ValueError(f"Student: the sigmas {list(self.sigmas)} do not end at 0; use the student's whole schedule.")

    def __call__(self, paths, index):
        x, t = paths.reach(index)
        finished = torch.empty_like(x)
        for time in t[:, 0].unique().tolist():
            members, sigmas = t[:, 0] == time, [time, *(sigma for sigma in self.sigmas if sigma < time)]
            group = x[members]
            finished[members] = self.finish(group.flatten(0, 1), sigmas, x.shape[1]).unflatten(0, group.shape[:2])
            paths.run.student_calls += len(group) * (len(sigmas) - 1)
        return finished

    incumbent_cost = 0

    def cost(self, index, steps):
        return 0

    def walked(self, index, steps):
        return index

    def exact(self, index, steps):
        return False
