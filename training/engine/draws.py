"""Random numbers of a training step that do not depend on how its batch is split over processes and passes."""

import torch

from ...fluxir_core.flow.noise import keyed_generator


class Draws:
    """A stream of its own for each of `rows` (their places in the whole batch) of step `step` of the run with `seed`.

    Every method draws once for each row, so a batch gets the same numbers on one GPU, on eight, in one pass or in four, and
    a resumed run continues with the ones it would have had.
    """

    def __init__(self, seed, step, rows, device="cpu"):
        self.rows, self.device = list(rows), device
        self._generators = [keyed_generator(seed, step, row) for row in self.rows]

    def normal(self, shape):
        """Standard normal float32, (rows, *shape)."""
        return torch.stack([torch.randn(shape, generator=own) for own in self._generators]).to(self.device)

    def noise(self, shape, tone=0.0):
        """The first noise of tokens, `shape` (N, 64): standard normal, with an offset of standard deviation `tone` for each of
        the latent's 16 channels. (rows, N, 64)."""
        noise = self.normal(shape)
        if tone:
            noise = noise + tone * self.normal((1, shape[-1] // 4)).repeat_interleave(4, -1)
        return noise

    def each(self, draw):
        """`draw(generator)`, a tensor (1, ...), for each row; (rows, ...)."""
        return torch.cat([draw(own) for own in self._generators]).to(self.device)

    def below(self, limit):
        """An integer in [0, limit) for each row, as a list."""
        return [torch.randint(limit, (), generator=own).item() for own in self._generators]

    def keeps(self, dropped):
        """Whether each row is kept, a list: False for a share of `dropped`."""
        return [torch.rand((), generator=own).item() >= dropped for own in self._generators]

    def kept(self, dropped):
        """1 for a row that is kept and 0 for a share of `dropped`, (rows, 1, 1)."""
        return torch.tensor(self.keeps(dropped), dtype=torch.float32, device=self.device).view(-1, 1, 1)
