"""The artist as verifier: asks somebody who looks at the candidates, and lets another verifier decide where nobody answers."""

import hashlib
import math
from collections import Counter, OrderedDict
from typing import NamedTuple

import torch

from .ensemble import Ensemble

CANDIDATE = "candidate"
"""The score that is none: the number by which an image is known again, whatever cohort it is in."""
KEPT = 256
"""Images that are remembered at once."""


class Offer(NamedTuple):
    """What is shown for a choice: `images`, each (3, H, W) uint8, the `degraded` one or None, and `scores` [{verifier: float}]."""

    images: list
    degraded: torch.Tensor | None
    scores: list


class Unanswered(Exception):
    """Nobody chose: why, as a sentence without its end."""


class ArtistsChoice(Ensemble):
    """Candidates are chosen by `ask(Offer)`, which returns indices, the best first, some or all. Where it raises Unanswered,
    `inner` decides, and `remarks` says why.

    The same image is the same candidate and is offered once. Who is not chosen is ordered below the chosen by `inner`. A cohort
    whose candidates were offered together is not asked about again in one `run()`, a name of the search in progress. Images with
    NaN or infinity are never offered. The artist's word counts even where `inner` refuses.
    """

    def __init__(self, inner, ask, run=lambda: None):
        super().__init__((inner,), name="choose_yourself")
        self.inner, self.ask, self.run = inner, ask, run
        self._images, self._numbers = OrderedDict(), 0
        self._in_run, self._decided, self._unanswered = None, [], Counter()
        self.judges_fidelity = False

    def measure(self, images, reference=None):
        """As of `inner`, with CANDIDATE: each image's number, NaN where it cannot be shown."""
        found = self.inner.measure(images, reference)
        if reference is not None and reference.ndim == 3:
            reference = reference[None]
        numbers = [
            self._remember(image, None if reference is None else reference[i % len(reference)]) for i, image in enumerate(images)
        ]
        return found | {CANDIDATE: torch.tensor(numbers, dtype=torch.float32, device=images.device)}

    def _remember(self, image, degraded):
        if not torch.isfinite(image).all():
            return float("nan")
        pixels = _bytes(image)
        key = hashlib.sha256(pixels.numpy().tobytes()).digest()
        if key not in self._images:
            self._numbers += 1
            self._images[key] = (self._numbers, pixels, None if degraded is None else _bytes(degraded))
            while len(self._images) > KEPT:
                self._images.popitem(last=False)
        self._images.move_to_end(key)
        return float(self._images[key][0])

    def combine(self, measured):
        """One value (n, ...) a candidate: `inner`'s, or ranks from 0 to 1 where the artist chose."""
        values = self.inner.combine(measured)
        self.judges_fidelity = False
        flat, numbers = values.reshape(len(values), -1).clone(), measured[CANDIDATE].reshape(len(values), -1)
        for column in range(flat.shape[1]):
            order = self._order(measured, numbers, column)
            if order is not None:
                self.judges_fidelity = True  # the artist sees the degraded image
                flat[:, column] = _ranked(order, numbers[:, column].tolist(), flat[:, column].tolist())
        return flat.reshape(values.shape)

    def member_values(self, measured):
        """The artist's one vote; where `inner` decides, its members'."""
        values = self.combine(measured)
        return {self.name: values} if self.judges_fidelity else self.inner.member_values(measured)

    def _order(self, measured, numbers, column):
        """Numbers of the chosen candidates of a column, the best first; None where `inner` decides."""
        if self.run() != self._in_run:
            self._in_run, self._decided = self.run(), []
        known = {number: (pixels, degraded) for number, pixels, degraded in self._images.values()}
        rows = {number: row for row, number in enumerate(numbers[:, column].tolist()) if number in known}
        offered = list(rows)
        if len(offered) < 2:
            return None
        for members, order in reversed(self._decided):
            if members >= rows.keys():
                return order
        scores = [
            {name: float(own.reshape(len(own), -1)[rows[number], column]) for name, own in measured.items() if name != CANDIDATE}
            for number in offered
        ]
        try:
            answer = self.ask(Offer([known[number][0] for number in offered], known[offered[0]][1], scores))
            order = [offered[index] for index in answer]
        except Unanswered as reason:
            self._unanswered[str(reason)] += 1
            order = None
        self._decided.append((rows.keys(), order))
        return order

    def remarks(self):
        """Sentences on the choices that `inner` made since the last call."""
        found = [
            f"{reason}, so {self.inner.name} decided" + (f" {count} times." if count > 1 else ".")
            for reason, count in self._unanswered.items()
        ]
        self._unanswered.clear()
        return found


def _bytes(image):
    return (image.detach().float().clamp(0, 1) * 255).round().byte().cpu()


def _ranked(order, numbers, values):
    """(n,) ranks from 0, worst, to 1: the candidates of `order` first, then the others by `values`. Those that are not in `order`
    and have no finite value stay refused."""
    keys = [(-order.index(number), 0.0) if number in order else (-len(order), value) for number, value in zip(numbers, values)]
    levels = sorted({key for key in keys if math.isfinite(key[1])})
    return torch.tensor([levels.index(key) / max(1, len(levels) - 1) if key in levels else -torch.inf for key in keys])
