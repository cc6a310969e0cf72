"""An exponential moving average of weights that forgets its start."""

from contextlib import contextmanager

import torch

from .processes import local


class MovingAverage:
    """The average of `parameters`, which `update` moves toward their present values; of this process' shards alone.

    The n-th update keeps min(decay, (1 + n) / (10 + n)) of the average, so that a short run is not held at its start.
    """

    def __init__(self, parameters, decay):
        self.parameters, self.decay, self.updates = list(parameters), decay, 0
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self):
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        own, current = ([local(tensor) for tensor in tensors] for tensors in (self.values, self.parameters))
        torch._foreach_lerp_(own, current, 1 - kept)
        self.updates += 1

    @contextmanager
    def applied(self):
        """The parameters hold the average inside this block, and their own values again behind it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def apply(self):
        """Gives the parameters the average for good."""
        for parameter, value in zip(self.parameters, self.values):
            local(parameter).copy_(local(value))

    def state_dict(self):
        return {"updates": self.updates, "values": self.values}

    @torch.no_grad()
    def load_state_dict(self, state):
        self.updates = state["updates"]
        for own, value in zip(self.values, state["values"]):
            local(own).copy_(local(value))

    @torch.no_grad()
    def _swap(self):
        for parameter, value in zip(self.parameters, self.values):
            own, other = local(parameter), local(value)
            held = own.clone()
            own.copy_(other)
            other.copy_(held)
