"""An artist's taste: learned from choices among candidates, as Bradley-Terry's model of their verifiers' scores."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..flux.weight_files import parse_json
from .bradley_terry import fit_comparisons
from .ensemble import Ensemble
from .selection import VETO

RIDGE = 1.0
"""The prior: a difference of a verifier's usual size changes the odds by a factor of e or less, as long as nothing else is known."""
LEAST, FOLDS = 8, 10
"""Choices below which nothing is claimed; parts into which they are divided, each judged by a fit to the others."""
CERTAIN = 3.5
"""Standard errors of a coin by which a taste must be better than one half to be known. It is that many because the fits that
judge each other's choices share most of them: a coin's agreement then spreads about one and a half times as far."""
FILE_KIND, LONGEST_FILE = "fluxir taste", 100_000


class Choice(NamedTuple):
    """One choice: `scores` [{verifier: number or None}] of each candidate, and `ranking`, the indices of those that were chosen,
    the best first. Every other candidate is below them, in no order."""

    scores: list
    ranking: list

    def pairs(self):
        """(better, worse) indices that the choice tells."""
        rest = [i for i in range(len(self.scores)) if i not in self.ranking]
        return [(a, b) for place, a in enumerate(self.ranking) for b in [*self.ranking[place + 1 :], *rest]]


@dataclass(frozen=True)
class Taste:
    """A fitted taste: the log-odds that a is preferred to b is the sum over `verifiers` of weight * (score_a - score_b) / scale.

    `agreement` is the share of pairs, a choice's weighing 1, that fits without that choice predicted, `error` its standard
    error, `choices` their number, `coin` the standard error of what guesses reach on them. NaN for a taste of no choices.
    """

    verifiers: tuple
    weights: tuple
    scales: tuple
    choices: int
    agreement: float
    error: float
    coin: float

    @property
    def knows(self):
        """Whether it predicts choices that it has not seen better than a coin does, beyond chance, from LEAST choices on."""
        return self.choices >= LEAST and self.agreement > 0.5 + CERTAIN * self.coin

    def values(self, measured):
        """(n, ...) float32 of the cohort `measured` {verifier: (n, ...)}: differences are log-odds. What lacks a score counts as
        the cohort's mean."""
        total = torch.zeros_like(next(iter(measured.values())), dtype=torch.float32)
        for name, weight, scale in zip(self.verifiers, self.weights, self.scales):
            if name in measured:
                scores = measured[name].float()
                usable = scores.isfinite()
                mean = torch.where(usable, scores, 0).sum(0) / usable.sum(0).clamp(min=1)
                total += weight / scale * torch.where(usable, scores - mean, 0)
        return total

    def sentence(self, shared=False):
        """What it knows, in one sentence; `shared`: it may be somebody else who reads it."""
        if not self.knows:
            whose = "the taste of the person who taught it" if shared else "your taste"
            seen = f"it predicts {percent(self.agreement)} of them" if self.choices >= LEAST else f"it needs at least {LEAST}"
            return f"It knows nothing about {whose} yet: {self.choices} {_plural('choice', self.choices)}, and {seen}."
        who = "the person who taught it" if shared else "you"
        return f"It picks the image {who} preferred in {percent(self.agreement)} of new comparisons (± {percent(2 * self.error)})."

    def to_json(self):
        """The text of a taste file. It holds no image, no path and no single choice."""
        return json.dumps({"kind": FILE_KIND, **asdict(self)}, indent=1) + "\n"


def percent(share):
    """`share`, 0 to 1, in words."""
    return f"{100 * share:.0f} %"


def _plural(word, count):
    return word if count == 1 else f"{word}s"


def taste_from_json(text):
    """The Taste in the text of a taste file. Raises ValueError, one sentence, for any other text."""
    try:
        if len(text) > LONGEST_FILE:
            raise ValueError
        found = parse_json(text)
        if found.pop("kind") != FILE_KIND:
            raise ValueError
        names = tuple(map(str, found["verifiers"]))
        weights, scales = (tuple(map(float, found[key])) for key in ("weights", "scales"))
        if (
            not len(names) == len(weights) == len(scales)
            or not all(map(math.isfinite, (*weights, *scales)))
            or min(scales, default=1) <= 0
        ):
            raise ValueError
        numbers = (float(found[key]) for key in ("agreement", "error", "coin"))
        return Taste(names, weights, scales, int(found["choices"]), *numbers)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError("the file is no taste; give one that My Taste saved.") from None


def choice_line(choice):
    """`choice` as a line of JSON, NaN and infinity as null."""
    scores = [
        {name: round(value, 6) if value is not None and math.isfinite(value) else None for name, value in own.items()}
        for own in choice.scores
    ]
    return json.dumps({"scores": scores, "ranking": list(choice.ranking)}) + "\n"


def read_choices(text):
    """(the Choices in the lines of `text`, the number of lines that hold none)."""
    found, broken = [], 0
    for line in text.splitlines():
        try:
            entry = parse_json(line)
            scores = [{str(name): value for name, value in own.items()} for own in entry["scores"]]
            ranking = [index for index in entry["ranking"] if type(index) is int and 0 <= index < len(scores)]
            numbers = [value for own in scores for value in own.values() if value is not None]
            if len(ranking) != len({*entry["ranking"]}) or not all(type(value) in (int, float) for value in numbers):
                raise ValueError
            found.append(Choice(scores, ranking))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            broken += bool(line.strip())
    return found, broken


def learn_taste(choices):
    """The Taste that `choices` tell. Vetoes are no taste and are left out; a score that is missing tells nothing."""
    choices = [choice for choice in choices if choice.pairs()]
    names = sorted({name for choice in choices for own in choice.scores for name in own if not name.startswith(VETO)})
    differences = [_differences(choice, names) for choice in choices]
    if not names or not choices:
        return Taste((), (), (), len(choices), math.nan, math.nan, math.nan)
    weights, scales = _fit(differences)
    folds, right = min(FOLDS, len(choices)), np.full(len(choices), 0.5)
    for fold in range(folds if folds > 1 else 0):
        own, their = _fit([each for i, each in enumerate(differences) if i % folds != fold])
        for i in range(fold, len(choices), folds):
            margins = differences[i] / their @ own
            right[i] = ((margins > 0) + 0.5 * (margins == 0)).mean()
    error = float(right.std(ddof=1) / math.sqrt(len(right))) if len(right) > 1 else math.nan
    return Taste(
        tuple(names),
        tuple(map(float, weights)),
        tuple(map(float, scales)),
        len(choices),
        float(right.mean()),
        error,
        _coins_error(choices),
    )


def _coins_error(choices):
    """The standard error of the agreement of independent guesses with `choices`: the chosen one's place among n others is uniform.

    Of a ranking only its first choice is counted, which makes the error larger than it is.
    """
    others = np.array([len(choice.scores) - 1 for choice in choices])
    return float(np.sqrt(((others + 2) / (12 * others)).sum()) / len(choices))


def _differences(choice, names):
    """(pairs, k) score differences, 0 where one of the two lacks a number."""
    rows = [[own.get(name) for name in names] for own in choice.scores]
    table = np.array(rows, np.float64)  # None becomes NaN
    pairs = np.array(choice.pairs())
    with np.errstate(invalid="ignore"):
        found = table[pairs[:, 0]] - table[pairs[:, 1]]
    return np.where(np.isfinite(found), found, 0)


def _fit(differences):
    """Weights (k,) and scales (k,), the root mean square of each difference; 1 where there is none."""
    rows = np.concatenate(differences)
    scales = np.sqrt((rows**2).mean(0))
    scales = np.where(scales > 0, scales, 1)
    return fit_comparisons(rows / scales, RIDGE)[0], scales


def pair_agreement(ensemble, choices):
    """How far `ensemble` agrees with `choices` (a choice's pairs weighing 1) by the scores that were kept, each pair compared
    alone; NaN where nothing can be compared."""
    right = []
    for choice in choices:
        own = []
        names = {name for scores in choice.scores for name in scores}
        for pair in choice.pairs():
            measured = {name: torch.tensor([_number(choice.scores[i].get(name)) for i in pair]) for name in names}
            try:
                better, worse = ensemble.combine(measured).nan_to_num(nan=-torch.inf).tolist()
            except (KeyError, RuntimeError):  # a verifier that was not there when the choice was made
                continue
            own.append((better > worse) + 0.5 * (better == worse))
        right += [sum(own) / len(own)] if own else []
    return sum(right) / len(right) if right else math.nan


def _number(value):
    return math.nan if value is None else float(value)


class TasteEnsemble(Ensemble):
    """Measures as `inner` and values as `taste`. What `inner` refuses stays refused; while the taste knows nothing, `inner` judges."""

    def __init__(self, inner, taste):
        super().__init__((inner,), name="my_taste")
        self.inner, self.taste, self._told = inner, taste, False

    def measure(self, images, reference=None):
        found = self.inner.measure(images, reference)
        missing = [name for name, weight in zip(self.taste.verifiers, self.taste.weights) if weight and name not in found]
        if self.taste.knows and missing and not self._told:
            logging.warning("My Taste: %s is part of the taste but was not measured here; connect it.", ", ".join(missing))
            self._told = True
        return found

    def combine(self, measured):
        judged = self.inner.combine(measured)
        return self.taste.values(measured).masked_fill(judged == -torch.inf, -torch.inf) if self.taste.knows else judged

    def member_values(self, measured):
        return {self.name: self.combine(measured)} if self.taste.knows else self.inner.member_values(measured)
