"""Ensembles: several verifiers choosing together, and the embedded default that needs no downloaded weights."""

import logging

import torch

from ..execution.oom import is_out_of_memory
from .aggregate import mean_z, rank
from .fidelity import Consistency
from .niqe import NIQE
from .statistics import CoherentGradient, SpectralSlope
from .vetoes import vetoes

SHARP_ENOUGH = 0.7
"""Rank of sharpness above which more of it earns nothing: the sharpest candidates are the oversharpened ones."""
FIDELITY_WEIGHT = 2.0


class Ensemble:
    """Verifiers, or ensembles of them, whose values inside one cohort are combined by `aggregate`.

    Scoring and choosing are apart: `measure` scores images wherever they come from, `combine` values one cohort.
    A verifier that raises is left out of that measurement with a warning (its scores are NaN, which decide nothing), unless
    all of them do; running out of memory is passed on.
    """

    def __init__(self, members, aggregate=mean_z, name="ensemble"):
        self.members, self.aggregate, self.name = tuple(members), aggregate, name
        names = [member.name for member in self.members]
        if not names:
            raise ValueError("Ensemble: no verifier was given; connect at least one.")
        if len(set(names)) < len(names):
            raise ValueError(f"Ensemble: the verifiers {', '.join(names)} share a name; leave the second out.")

    def measure(self, images, reference=None):
        """Every score of `images` (n, 3, H, W) by name, each (n,), higher is better; `reference` as for Verifier."""
        found, failures = {}, []
        for member in self.members:
            try:
                found |= (
                    member.measure(images, reference) if hasattr(member, "measure") else {member.name: member(images, reference)}
                )
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                failures.append(f"{member.name} ({error})")
                found[member.name] = torch.full((len(images),), torch.nan, device=images.device)
        if len(failures) == len(self.members):
            raise ValueError(f"{self.name}: every verifier failed: {'; '.join(failures)}; choose others.")
        for failure in failures:
            logging.warning("%s: the verifier %s failed and is left out", self.name, failure)
        return found

    def combine(self, measured):
        """One value (n, ...) for each candidate of the cohort `measured` {name: (n, ...)}; -inf where a member refuses it."""
        values = self.member_values(measured)
        total = self.aggregate(values)
        refused = torch.stack([value == -torch.inf for value in values.values()]).any(0)
        return total.masked_fill(refused, -torch.inf)

    def member_values(self, measured):
        """{member: its value (n, ...) of each candidate of the cohort `measured`}; a member that is an ensemble has one value."""
        return {
            member.name: member.combine(measured)
            if hasattr(member, "combine") and member.name not in measured
            else measured[member.name]
            for member in self.members
        }

    def remarks(self):
        """Sentences on what happened since the last call and whoever reads the report should know."""
        return [remark for member in self.members if isinstance(member, Ensemble) for remark in member.remarks()]

    def judges_fidelity(self, batch):
        """(batch,) bool: for which images the last decision needs no check of how near the result is to the degraded one."""
        return torch.zeros(batch, dtype=torch.bool)

    def forget(self):
        """Lets go of what was kept of the images, once all is chosen."""
        for member in self.members:
            if isinstance(member, Ensemble):
                member.forget()

    def __call__(self, images, reference=None):
        return self.combine(self.measure(images, reference))


class DefaultEnsemble(Ensemble):
    """Rank average of NIQE, coherent gradient and spectral slope, minus twice the consistency hinge; -inf where vetoed.

    Fidelity is a hinge and a veto, never a goal: a restoration that raises it returns the degraded image.
    """

    def __init__(self):
        super().__init__((NIQE(), CoherentGradient(), SpectralSlope()), name="natural_image")

    def measure(self, images, reference=None):
        """As Ensemble.measure, with `consistency` where there is a reference and `veto_<name>`: 0, or -1 where it refuses."""
        found = super().measure(images, reference)
        if reference is not None:
            found["consistency"] = Consistency()(images, reference)
        return found | {f"veto_{name}": -refused.float() for name, refused in vetoes(images, reference).items()}

    def combine(self, measured):
        refused = torch.stack([scores < 0 for name, scores in measured.items() if name.startswith("veto_")]).any(0)
        ranks = {member.name: rank(measured[member.name].masked_fill(refused, -torch.inf)) for member in self.members}
        ranks[CoherentGradient.name] = ranks[CoherentGradient.name].clamp(max=SHARP_ENOUGH)
        total = torch.stack(list(ranks.values())).mean(0)
        if "consistency" in measured:
            total = total + FIDELITY_WEIGHT * measured["consistency"]
        return total.masked_fill(refused, -torch.inf)

    def member_values(self, measured):
        """Itself alone: its statistics and limits make one judgment, with one vote."""
        return {self.name: self.combine(measured)}
