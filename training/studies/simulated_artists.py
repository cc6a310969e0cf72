"""`fluxir results taste`: how many choices My Taste needs, with artists whose taste is known because it is simulated."""

import itertools
import logging
import math

import numpy as np
import torch

from ...fluxir_core.degrade.presets import degrade_named
from ...fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble
from ...fluxir_core.verify.piqe import PIQE
from ...fluxir_core.verify.selection import VETO
from ...fluxir_core.verify.taste import Choice, TasteEnsemble, learn_taste, pair_agreement
from ..miniature.held_out import held_out_photos

DEGRADATIONS, STEPS, STRENGTHS, SEEDS = ("noise", "low_light", "sr4"), 8, (0.7, 1.0), (0, 1, 2, 3)
"""A scene's candidates: restored in so many steps, from every seed with the adapter at every strength."""
OFFERED, UNSEEN_PHOTOS = 4, 2
"""Candidates of one choice; photos that none of an artist's choices is about."""
COUNTS = (5, 8, 10, 15, 20, 30, 40, 60, 80, 120, 160)
"""Choices after which the taste is looked at."""
GOAL, ARTISTS = 0.8, 40
"""Agreement that is waited for; artists of each kind."""


def scenes(restorer):
    """[(photo, scores [{verifier: float}], hidden (n,))] of every held-out photo under every degradation.

    `hidden` is a taste that no verifier measures: how near an image's colorfulness is to the middle of its scene's.
    """
    ensemble, found = Ensemble([DefaultEnsemble(), PIQE()]), []
    photos = held_out_photos()
    for degradation in DEGRADATIONS:
        degraded = torch.stack([degrade_named(photo, degradation, seed=i) for i, photo in enumerate(photos.values())])
        drawn = [
            restorer.restore(degraded, [seed] * len(degraded), STEPS, strength=strength) for seed in SEEDS for strength in STRENGTHS
        ]
        for i, photo in enumerate(photos):
            images = torch.stack([images[i] for images in drawn])
            measured = {name: values.tolist() for name, values in ensemble.measure(images, degraded[i]).items()}
            rows = [dict(zip(measured, row)) for row in zip(*measured.values())]
            color = colorfulness(images)
            found.append((photo, rows, (-(color - color.median()).abs()).numpy()))
        logging.info("%s: %d candidates of each of %d photos", degradation, len(drawn), len(photos))
    return found


def colorfulness(images):
    """(n,) mean distance of the colors of `images` (n, 3, H, W) from gray."""
    return (images - images.mean(1, keepdim=True)).square().mean((1, 2, 3)).sqrt()


class Artist:
    """A simulated artist: `utility` {scene: (n,)} and the `noise` that is added at every look, in the utility's own units."""

    def __init__(self, utility, noise, generator):
        self.utility, self.noise, self.generator = utility, noise, generator

    def look(self, scene, candidates):
        """What the artist feels about `candidates` of `scene` this time."""
        return self.utility[scene][candidates] + self.noise * self.generator.gumbel(size=len(candidates))


def artist_of(kind, found, seed):
    """A simulated Artist of `kind` (see KINDS) for the `scenes` found; another one for every seed."""
    generator = np.random.default_rng((sorted(KINDS).index(kind), seed))
    linear, hidden, noise = KINDS[kind]
    names = [name for name in found[0][1][0] if not name.startswith(VETO)]
    tables = [np.array([[row[name] for name in names] for row in rows]) for _, rows, _ in found]
    weights = generator.normal(size=len(names))
    parts = [_within([table @ (weights / _spread(tables)) for table in tables]), _within([own for *_, own in found])]
    utility = {i: linear * one + hidden * other for i, (one, other) in enumerate(zip(*parts))}
    return Artist(utility, noise, generator)


KINDS = {
    "linear in the verifiers' scores": (1.0, 0.0, 0.0),
    "half of it a hidden taste": (0.7, 0.7, 0.0),
    "only a hidden taste": (0.0, 1.0, 0.0),
    "inconsistent": (1.0, 0.0, 1.0),
    "a coin": (0.0, 0.0, 1.0),
}
"""How much of the utility is linear, how much hidden, each with a standard deviation of 1 inside a scene, and the noise."""


def _spread(tables):
    """(k,) standard deviation of every score inside a scene."""
    return np.maximum(np.sqrt(np.mean([table.var(0) for table in tables], 0)), 1e-9)


def _within(parts):
    """Each of `parts` (n,) around its scene's mean, with a standard deviation of 1 over all."""
    centered = [own - own.mean() for own in parts]
    return [own / max(1e-9, np.sqrt(np.mean([each.var() for each in centered]))) for own in centered]


def simulate(found, kind, seed):
    """Rows {artist, seed, choices, agreement, stated, knows, default, ceiling} of one artist after COUNTS choices.

    agreement: share of all pairs of candidates in the scenes of unseen photos that the taste's own weights order as the artist
    did; default: the default ensemble's; ceiling: that of the artist's own utility without its noise. stated: what the taste says
    of itself; knows: whether it claims anything. An artist's two looks at a pair may differ.
    """
    artist = artist_of(kind, found, seed)
    draw = artist.generator
    photos = sorted({photo for photo, *_ in found})
    unseen = {photos[i] for i in draw.choice(len(photos), UNSEEN_PHOTOS, replace=False)}
    learned_on = [i for i, (photo, *_) in enumerate(found) if photo not in unseen]
    choices = []
    for _ in range(max(COUNTS)):
        scene = int(draw.choice(learned_on))
        offered = draw.choice(len(found[scene][1]), OFFERED, replace=False)
        best = int(artist.look(scene, offered).argmax())
        choices.append(Choice([found[scene][1][i] for i in offered], [best]))
    held_out, ceiling = [], []
    for scene in (i for i, (photo, *_) in enumerate(found) if photo in unseen):
        for pair in itertools.combinations(range(len(found[scene][1])), 2):
            felt = artist.look(scene, np.array(pair))
            held_out.append(Choice([found[scene][1][i] for i in pair], [int(felt.argmax())]))
            own = artist.utility[scene][np.array(pair)]
            ceiling.append(0.5 if own[0] == own[1] else float(own.argmax() == felt.argmax()))
    default, rows = DefaultEnsemble(), []
    base = {"artist": kind, "seed": seed, "default": pair_agreement(default, held_out), "ceiling": float(np.mean(ceiling))}
    for count in COUNTS:
        taste = learn_taste(choices[:count])
        own = pair_agreement(_Weights(taste), held_out)
        rows.append({**base, "choices": count, "agreement": own, "stated": taste.agreement, "knows": taste.knows})
    return rows


class _Weights(TasteEnsemble):
    """A taste's weights alone, whether it claims to know anything or not, and without vetoes."""

    def __init__(self, taste):
        super().__init__(DefaultEnsemble(), taste)

    def combine(self, measured):
        return self.taste.values(measured)


def measure(restorer, artists=ARTISTS):
    """Rows of `simulate` for `artists` artists of every kind."""
    found = scenes(restorer)
    return [row for kind in KINDS for seed in range(artists) for row in simulate(found, kind, seed)]


def table(rows):
    """Markdown of `measure`'s rows."""
    artists = len({row["seed"] for row in rows})
    shown = [count for count in COUNTS if count in (5, 10, 20, 40, 80, 160)]
    lines = [
        f"Agreement on held-out pairs in %: means over {artists} artists of each kind, which differ in their weights and in the photos "
        "held out; in brackets the artists' standard deviation.",
        "",
        "| artist | best possible | default ensemble | " + " | ".join(f"{count} choices" for count in shown) + " |",
        "|---" * (3 + len(shown)) + "|",
    ]
    for kind in KINDS:
        own = [row for row in rows if row["artist"] == kind]
        cells = [_percent(row["agreement"] for row in own if row["choices"] == count) for count in shown]
        first = [row for row in own if row["choices"] == COUNTS[0]]
        ceiling, default = (_percent(row[name] for row in first) for name in ("ceiling", "default"))
        lines.append(f"| {kind} | {ceiling} | {default} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Choices until {GOAL:.0%} of held-out pairs agree; choices until it says that it knows something; how often it says so after "
        f"{COUNTS[-1]}; and what it then says of itself, less what is true, in points.",
        "",
        f"| artist | until {GOAL:.0%} (median; artists that get there) | says it knows, from (median) | says it knows in the end | "
        "says it knows at any of the looks | stated less true |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        by_artist = [[row for row in rows if (row["artist"], row["seed"]) == (kind, seed)] for seed in range(artists)]
        reached = [_first(own, lambda row: row["agreement"] >= GOAL) for own in by_artist]
        known = [_first(own, lambda row: row["knows"]) for own in by_artist]
        last = [own[-1] for own in by_artist]
        told = [100 * (row["stated"] - row["agreement"]) for row in last]
        lines.append(
            f"| {kind} | {_median(reached)} ({sum(map(math.isfinite, reached))} of {artists}) | {_median(known)} | "
            f"{sum(row['knows'] for row in last)} of {artists} | {sum(map(math.isfinite, known))} of {artists} | "
            f"{np.mean(told):+.1f} ({np.std(told):.1f}) |"
        )
    return "\n".join(lines)


def _percent(values):
    values = [100 * value for value in values]
    return f"{np.mean(values):.0f} ({np.std(values):.0f})"


def _first(rows, reached):
    """The number of choices at the first of `rows` that has `reached` something, infinity where none has."""
    return next((row["choices"] for row in rows if reached(row)), math.inf)


def _median(counts):
    middle = float(np.median(counts)) if any(map(math.isfinite, counts)) else math.inf
    return f"{middle:g}" if math.isfinite(middle) else "never"
