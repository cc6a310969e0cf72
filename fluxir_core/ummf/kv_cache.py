"""Keys and values of condition tokens that no step changes: computed once for each image and prompt."""

from typing import NamedTuple

import torch

from .condition_stream import attend_with_kv, log_strength

MAX_KEPT = 4
"""Conditionings whose keys and values are kept: cond and uncond, and a scheduled prompt or two."""


class CachedCondition:
    """Condition tokens whose keys and values are known (`ConditionBranch.remember`), in the place of a ConditionStream.

    `rows` (B,) says which of the memory's images each row of the call belongs to.
    """

    joint = False

    def __init__(self, memory, rows, strength=1.0):
        self.memory, self.rows, self.bias = memory, rows, log_strength(strength)

    def attend(self, index, query, key, value, attention):
        """Computes a block's attention with the condition's kept keys and values.

        Args:
            index: of the block, double blocks first.
            query, key, value: of the base's tokens, (B, heads, N, head_dim).
            attention: as for ConditionStream.attend.

        Returns:
            The output for the base's tokens, (B, N, hidden).
        """
        more_keys, more_values = (kept[self.rows] for kept in self.memory[index])
        return attend_with_kv(query, key, value, more_keys, more_values, self.bias, attention)


class _Kept(NamedTuple):
    distinct: torch.Tensor
    ids: list
    memory: list


class KVCache:
    """The memories of one run. Rows are compared by content: candidates repeat images, cond and uncond share them."""

    def __init__(self):
        self._kept: list[_Kept] = []

    def clear(self):
        """Forgets everything."""
        self._kept.clear()

    def recall(self, branch, tokens, ids, guidance, pooled, attention, fits=lambda size: True, most=MAX_KEPT):
        """Finds the keys and values of condition tokens, computed for what is new.

        Args:
            branch: ConditionBranch.
            tokens: of all condition images, (B, M, 64).
            ids: their positions, a list of (M_i, 3) for each condition image.
            guidance: (B,) or None.
            pooled: the prompts' pooled embeddings, (B, vec).
            attention: as for ConditionStream.attend.
            fits: `fits(bytes)` is asked before anything is kept; by default everything fits.
            most: memories that are kept; of more the oldest go. Tiles of an image take turns, so give each its own.

        Returns:
            (memory, rows) as for CachedCondition, or None where it does not fit.
        """
        by_row = [tokens.flatten(1), pooled]
        if branch.mode.guidance is None and guidance is not None:
            by_row.append(guidance[:, None].to(pooled))
        distinct, rows = torch.unique(torch.cat(by_row, 1), dim=0, return_inverse=True)
        for kept in self._kept:
            if _same(kept.ids, ids) and torch.equal(kept.distinct, distinct):
                return kept.memory, rows
        size = 2 * branch.dims.blocks * len(distinct) * tokens.shape[1] * branch.dims.hidden_size * tokens.element_size()
        if not fits(size):
            return None
        first = torch.stack([(rows == row).nonzero()[0, 0] for row in range(len(distinct))])
        vector = branch.vector(None, None if guidance is None else guidance[first], pooled[first])
        memory = branch.remember(tokens[first], ids, vector, attention)
        del self._kept[: -most + 1]
        self._kept.append(_Kept(distinct, ids, memory))
        return memory, rows


def _same(ids, others):
    return len(ids) == len(others) and all(map(torch.equal, ids, others))
