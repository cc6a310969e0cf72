"""Selectors: which members of a population are parents, and which survive.

Values are (n, B): n members for each of B images, higher is better. Indices come back as (m, B). Ties go to the lowest
index, so that an incumbent is only replaced by something better.
"""

from typing import Protocol

import torch


def take(population, index):
    """`population` (n, B, ...) at `index` (m, B): (m, B, ...), each image choosing for itself."""
    return population[index, torch.arange(population.shape[1], device=index.device)]


def top(values, count):
    """The `count` best of `values`, in their old order."""
    order = torch.argsort(values, dim=0, descending=True, stable=True)
    return order[:count].sort(dim=0).values


class Selector(Protocol):
    """Who has children and who goes on, by `values` (n, B)."""

    @property
    def name(self) -> str: ...

    def parents(self, values, children, generators) -> torch.Tensor:
        """Indices (children, B) of the parents; `generators` holds one generator an image."""
        ...

    def survivors(self, values, lineages) -> torch.Tensor:
        """Indices (lineages, B) of those that go on."""
        ...


class Argmax:
    """The lineages have children in turn, and the best of everyone survive."""

    name = "argmax"

    def parents(self, values, children, generators):
        return (torch.arange(children) % len(values))[:, None].expand(-1, values.shape[1])

    def survivors(self, values, lineages):
        return top(values, lineages)


class PerLineage:
    """Every lineage has one child, and the child replaces its own parent where it is better (the paper's figure)."""

    name = "per_lineage"

    def parents(self, values, children, generators):
        return torch.arange(len(values))[:, None].expand(-1, values.shape[1])

    def survivors(self, values, lineages):
        own, child = values[:lineages], values[lineages:]
        index = torch.arange(lineages)[:, None].expand_as(own)
        return torch.where(child > own, index + lineages, index)


class Tournament:
    """Each child's parent is the better of two members drawn at random; the best of everyone survive (EvoSearch's elites)."""

    name = "tournament"

    def parents(self, values, children, generators):
        draws = torch.stack([torch.randint(len(values), (2, children), generator=g) for g in generators], -1)
        first, second = (take(values, draw) for draw in draws)
        return torch.where(second > first, draws[1], draws[0])

    def survivors(self, values, lineages):
        return top(values, lineages)


def resample(values, strength, generators):
    """Systematic resampling in proportion to exp(strength * value): (n, B) indices, ascending, n kept (SMC).

    Values of minus infinity die out, unless all are; `generators` holds one generator an image.
    """
    weights = torch.where(values.isfinite(), strength * values.double(), -torch.inf)
    weights = torch.where(weights.isfinite().any(0), weights, torch.zeros_like(weights))
    share = torch.softmax(weights, 0).cumsum(0)
    share = share / share[-1]
    offsets = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
    positions = (torch.arange(len(values), dtype=torch.float64)[:, None] + offsets) / len(values)
    return torch.searchsorted(share.T.contiguous(), positions.T.contiguous()).T.clamp(max=len(values) - 1)
