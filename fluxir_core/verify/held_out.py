"""The verifier that a search does not see: where its gain does not follow the searched one's, the search fools its judge."""

from .niqe import NIQE
from .piqe import PIQE
from .statistics import CoherentGradient, SpectralSlope

WEIGHT_FREE = (PIQE, NIQE, SpectralSlope, CoherentGradient)


def held_out_for(verifier):
    """The first of WEIGHT_FREE that `verifier`, an ensemble or a single one, does not score by; None if it uses all."""
    searched = {name.removeprefix("pyiqa_") for name in _names(verifier)}
    return next((kind() for kind in WEIGHT_FREE if kind.name not in searched), None)


def _names(verifier):
    yield verifier.name
    for member in getattr(verifier, "members", ()):
        yield from _names(member)
