"""Look-aheads: what a candidate on its trajectory is judged on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from .trajectories import times_like


class LookAhead(Protocol):
    """Estimates the clean latents (n, B, ...) of Trajectories at a grid index, for the verifiers to judge."""

    @property
    def incumbent_cost(self) -> int:
        """Model calls a surviving member pays beyond those of its own trajectory."""
        ...

    def __call__(self, trajectories, index) -> torch.Tensor: ...

    def cost(self, index, steps) -> int:
        """Model calls a new member pays at grid `index` of a grid of `steps` steps."""
        ...

    def walked(self, index, steps) -> int:
        """Grid points whose velocity a member knows after a look from `index`."""
        ...

    def exact(self, index, steps) -> bool:
        """Whether the estimate is the final state."""
        ...


@dataclass(frozen=True)
class Native:
    """The paper's MSPDE: `steps` steps of the sampler's own grid, then the clean estimate. 0 steps is Tweedie's estimate.

    The calls lie on the path itself: whoever survives has made the steps it would have made anyway.
    """

    steps: int = 0

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"Native: steps is {self.steps}; use at least 0.")

    def __call__(self, trajectories, index):
        return trajectories.clean_estimate(min(index + self.steps, trajectories.search.steps))

    incumbent_cost = 0

    def cost(self, index, steps):
        return min(self.steps + 1, steps - index)

    def walked(self, index, steps):
        return min(index + self.steps + 1, steps)

    def exact(self, index, steps):
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

    def __call__(self, trajectories, index):
        x, t = trajectories.reach(index)
        v = trajectories.velocity(index)
        for call in range(self.calls):
            if call:
                v = trajectories.search.velocity(x, t * (1 - call / self.calls))
            x = x - times_like(t / self.calls, x) * v
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
    are not the searched model's: they are counted as `SearchState.student_calls`.
    """

    finish: Callable
    sigmas: tuple

    def __post_init__(self):
        if not self.sigmas or self.sigmas[-1] != 0:
            raise ValueError(f"Student: the sigmas {list(self.sigmas)} do not end at 0; use the student's whole schedule.")

    def __call__(self, trajectories, index):
        x, t = trajectories.reach(index)
        finished = torch.empty_like(x)
        for time in t[:, 0].unique().tolist():
            members, sigmas = t[:, 0] == time, [time, *(sigma for sigma in self.sigmas if sigma < time)]
            group = x[members]
            finished[members] = self.finish(group.flatten(0, 1), sigmas, x.shape[1]).unflatten(0, group.shape[:2])
            trajectories.search.student_calls += len(group) * (len(sigmas) - 1)
        return finished

    incumbent_cost = 0

    def cost(self, index, steps):
        return 0

    def walked(self, index, steps):
        return index

    def exact(self, index, steps):
        return False
