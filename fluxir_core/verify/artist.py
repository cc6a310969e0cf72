"""The artist as verifier: asks somebody who looks at the candidates, and lets another verifier decide where nobody answers."""

import hashlib
import math
from collections import Counter, OrderedDict
from itertools import count
from typing import NamedTuple
from weakref import WeakValueDictionary

import torch

from .ensemble import Ensemble

CANDIDATE = "candidate"
"""The score that is none: the number by which an image is known again, whatever cohort it is in."""
MOST_BYTES = 2 * 2**30
"""Of the images that are remembered at once, one byte a value; the oldest go first."""


def verifiers_scores(measured):
    """`measured` {verifier: scores} without CANDIDATE: what is shown, reported and learned from."""
    return {name: scores for name, scores in measured.items() if name != CANDIDATE}


class Offer(NamedTuple):
    """What is shown for a choice: `images`, each (3, H, W) uint8, the `degraded` one or None, and `scores` [{verifier: float}]."""

    images: list
    degraded: torch.Tensor | None
    scores: list


class Unanswered(Exception):
    """Nobody chose: why, as a sentence without its end, and what to do about it, a sentence or nothing."""

    def __init__(self, reason, remedy=""):
        super().__init__(reason)
        self.remedy = remedy

    def remark(self, decider, times=1):
        """That `decider` chose instead, in a sentence or two."""
        return f"{self}, so {decider} decided{f' {times} times' if times > 1 else ''}.{self.remedy and f' {self.remedy}'}"


class ArtistsChoice(Ensemble):
    """Candidates are chosen by `ask(Offer)`, which returns indices, the best first, some or all. Where it raises Unanswered,
    `inner` decides, and `remarks` says why.

    The same image is the same candidate and is offered once. Who is not chosen is ordered below the chosen by `inner`. A cohort
    whose candidates were offered together is not asked about again in one `run()`, a name of what is in progress. Images with
    NaN or infinity are never offered. The artist's word counts even where `inner` refuses. Images are kept for the questions to
    come, until `forget` or another run.
    """

    def __init__(self, inner, ask, run=lambda: None):
        super().__init__((inner,), name="choose_yourself")
        self.inner, self.ask, self.run = inner, ask, run
        self._next, self._images, self._degraded = count(1), OrderedDict(), WeakValueDictionary()
        self._in_run, self._numbers, self._decided, self._unanswered = None, {}, [], Counter()
        self._chosen = torch.zeros(1, dtype=torch.bool)

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
        self._follow_run()
        if not torch.isfinite(image).all():
            return float("nan")
        pixels = _bytes(image)
        key = _key(pixels)
        number = self._numbers[key] = self._numbers.get(key) or next(self._next)
        if number not in self._images:
            self._images[number] = pixels, None if degraded is None else self._shared(_bytes(degraded))
            while len(self._images) > 1 and self.kept_bytes() > MOST_BYTES:
                self._images.popitem(last=False)
        self._images.move_to_end(number)
        return float(number)

    def _shared(self, degraded):
        """The tensor that is kept already where its content is that of `degraded`."""
        return self._degraded.setdefault(_key(degraded), degraded)

    def kept_bytes(self):
        """Bytes of all images that are kept."""
        kept = {id(image): image for pair in self._images.values() for image in pair if image is not None}
        return sum(image.nbytes for image in kept.values())

    def forget(self):
        """Lets go of the images. What was decided in this run stays; outside of one nothing does."""
        super().forget()
        self._images.clear()
        if self.run() is None:
            self._numbers, self._decided = {}, []

    def _follow_run(self):
        if self.run() != self._in_run:
            self._in_run, self._numbers, self._decided = self.run(), {}, []
            self._images.clear()

    def combine(self, measured):
        """One value (n, ...) a candidate: `inner`'s, or ranks from 0 to 1 where the artist chose."""
        values = self.inner.combine(measured)
        flat, numbers = values.reshape(len(values), -1).clone(), measured[CANDIDATE].reshape(len(values), -1)
        self._chosen = torch.zeros(flat.shape[1], dtype=torch.bool, device=flat.device)
        for column in range(flat.shape[1]):
            order = self._order(measured, numbers, column)
            if order is not None:
                self._chosen[column] = True
                flat[:, column] = _ranked(order, numbers[:, column].tolist(), flat[:, column].tolist())
        return flat.reshape(values.shape)

    def member_values(self, measured):
        """The members' of `inner`; where the artist chose, they all vote the artist's way."""
        values = self.combine(measured)
        chosen = self._chosen.reshape(values.shape[1:])
        return {name: torch.where(chosen, values, own) for name, own in self.inner.member_values(measured).items()}

    def judges_fidelity(self, batch):
        """(batch,) bool: which images the artist chose for, who sees the degraded one."""
        return self._chosen.reshape(-1, batch).any(0).cpu()

    def _order(self, measured, numbers, column):
        """Numbers of the chosen candidates of a column, the best first; None where `inner` decides."""
        self._follow_run()
        known = self._images
        rows = {number: row for row, number in enumerate(numbers[:, column].tolist()) if number in known}
        offered = list(rows)
        if len(offered) < 2:
            return None
        for members, order in reversed(self._decided):
            if members >= rows.keys():
                return order
        scores = [
            {name: float(own.reshape(len(own), -1)[rows[number], column]) for name, own in verifiers_scores(measured).items()}
            for number in offered
        ]
        try:
            answer = self.ask(Offer([known[number][0] for number in offered], known[offered[0]][1], scores))
            order = [offered[index] for index in answer]
        except Unanswered as reason:
            self._unanswered[str(reason), reason.remedy] += 1
            order = None
        self._decided.append((rows.keys(), order))
        return order

    def remarks(self):
        """Sentences on the choices that `inner` made since the last call."""
        found = [Unanswered(*why).remark(self.inner.name, times) for why, times in self._unanswered.items()]
        self._unanswered.clear()
        return found


def asks(ensemble):
    """Whether an artist is asked by `ensemble`, or by one inside it."""
    return isinstance(ensemble, ArtistsChoice) or any(map(asks, getattr(ensemble, "members", ())))


def _bytes(image):
    return (image.detach().float().clamp(0, 1) * 255).round().byte().cpu()


def _key(pixels):
    return pixels.shape, hashlib.sha256(pixels.numpy().tobytes()).digest()


def _ranked(order, numbers, values):
    """(n,) ranks from 0, worst, to 1: the candidates of `order` first, then the others by `values`. Those that are not in `order`
    and have no finite value stay refused."""
    keys = [(-order.index(number), 0.0) if number in order else (-len(order), value) for number, value in zip(numbers, values)]
    levels = sorted({key for key in keys if math.isfinite(key[1])})
    return torch.tensor([levels.index(key) / max(1, len(levels) - 1) if key in levels else -torch.inf for key in keys])
