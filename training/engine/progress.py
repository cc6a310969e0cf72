"""The line that a training run shows beside its log: how far it is, how well it does, and when it ends."""

import time

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

FORMAT = "{percentage:3.0f}%|{bar}| step {n_fmt} of {total_fmt} [{elapsed}<{remaining}]{postfix}"
SMOOTHING = 0.1
"""The share of the latest step in the images a second."""


class Progress:
    """A bar of `steps` steps, of which `start` are done; the log is written above it. `shown` None: where a person can see it.

    Use it in a `with` statement.
    """

    def __init__(self, steps, start=0, shown=None, file=None):
        disable = None if shown is None else not shown
        self.bar = tqdm(total=steps, initial=start, bar_format=FORMAT, disable=disable, file=file, mininterval=0.5)
        self.saved, self.rate, self.before, self.redirect = start, None, time.monotonic(), logging_redirect_tqdm()

    def __enter__(self):
        if not self.bar.disable:
            self.redirect.__enter__()
        return self

    def __exit__(self, *raised):
        if not self.bar.disable:
            self.redirect.__exit__(*raised)
        self.bar.close()

    def step(self, images=0, loss=None):
        """Another step is done, which saw `images` images and had the `loss`."""
        now = time.monotonic()
        rate, self.before = images / max(now - self.before, 1e-9), now
        self.rate = rate if self.rate is None else self.rate + SMOOTHING * (rate - self.rate)
        parts = [] if loss is None else [f"loss {loss:.4g}"]
        parts += [f"{self.rate:.3g} images/s"] if images else []
        parts.append(f"checkpoint {self.saved}" if self.saved else "no checkpoint yet")
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update()

    def checkpoint(self, step):
        """A checkpoint was written after `step` steps."""
        self.saved = step
