"""The embedded default: what to choose by when no weights were downloaded."""

import torch

from ..flow.aggregate import rank
from .fidelity import Consistency
from .guards import vetoes
from .niqe import NIQE
from .statistics import CoherentGradient, SpectralSlope

SHARP_ENOUGH = 0.7
"""Rank of sharpness above which more of it earns nothing: the sharpest candidates are the oversharpened ones."""
FIDELITY_WEIGHT = 2.0


class DefaultEnsemble:
    """Rank average of NIQE, coherent gradient and spectral slope, minus twice the consistency hinge; vetoed: -inf.

    The scores order one batch of candidates; for candidates measured in several batches, collect what `measure`
    returns, concatenate by name and `combine` once. `further` verifiers (neural ones, say) join as further ranks.
    """

    name = "ensemble"

    def __init__(self, further=()):
        self.ranked = (NIQE(), CoherentGradient(), SpectralSlope(), *further)
        names = [verifier.name for verifier in self.ranked]
        if len(set(names)) < len(names):
            raise ValueError(f"DefaultEnsemble: the verifiers {', '.join(names)} share a name; give each its own.")

    def measure(self, pictures, reference=None):
        """Every sub-score of `pictures` by name: {name: (B,)}, to be logged. "vetoed" is True where a guard refuses."""
        found = {verifier.name: verifier(pictures, reference) for verifier in self.ranked}
        if reference is not None:
            found["consistency"] = Consistency()(pictures, reference)
        refused = vetoes(pictures, reference)
        found |= {f"veto_{guard}": refused[guard] for guard in refused}
        found["vetoed"] = torch.stack(list(refused.values())).any(0)
        return found

    def combine(self, measured):
        """The scores (B,) of candidates whose sub-scores are `measured`; -inf where vetoed, the rest ranked."""
        usable = ~measured["vetoed"]
        total = torch.full(usable.shape, -torch.inf, device=usable.device)
        if usable.any():
            ranks = [rank(measured[verifier.name][usable]) for verifier in self.ranked]
            sharp = [verifier.name for verifier in self.ranked].index(CoherentGradient.name)
            ranks[sharp] = ranks[sharp].clamp(max=SHARP_ENOUGH)
            total[usable] = torch.stack(ranks).mean(0)
            if "consistency" in measured:
                total[usable] += FIDELITY_WEIGHT * measured["consistency"][usable]
        return total

    def __call__(self, pictures, reference=None):
        return self.combine(self.measure(pictures, reference))
