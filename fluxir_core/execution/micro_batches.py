"""Candidates a few at a time, as many as the memory holds."""

import logging

import torch

from .oom import is_out_of_memory


class MicroBatches:
    """Calls a function on groups of candidates, `size` at once; halves the size for good when memory runs out.

    Rows are candidate by candidate, `batch` images each (see `search.task.Task`), and a group holds whole candidates, so that
    whatever a host tiles over the batch meets its own image.
    """

    def __init__(self, batch, size):
        if size < 1:
            raise ValueError(f"MicroBatches: {size} candidates at once; use at least 1.")
        self.batch, self.size = batch, size

    def __call__(self, function, *rows):
        """`function(*group)` for groups of the tensors `rows` (n * batch, ...), put together again.

        It returns a tensor, or a dict of tensors, with the group's rows first; a name that a group lacks is NaN there.
        """
        total, start, outputs = len(rows[0]), 0, []
        while start < total:
            stop = min(start + self.size * self.batch, total)
            try:
                outputs.append(function(*(row[start:stop] for row in rows)))
                start = stop
                continue
            except Exception as error:
                if self.size == 1 or not is_out_of_memory(error):
                    raise
            # Behind the except block: the exception keeps the failed call's tensors alive.
            self.size //= 2
            logging.warning("Out of memory; going on with %d candidates at once", self.size)
            torch.cuda.empty_cache()
        return _joined(outputs) if isinstance(outputs[0], dict) else torch.cat(outputs)


def _joined(outputs):
    """Dicts of tensors (rows, ...) as one."""
    like = {name: values for output in outputs for name, values in output.items()}
    sizes = [len(next(iter(output.values()), ())) for output in outputs]
    return {
        name: torch.cat(
            [
                output[name] if name in output else values.new_full((size, *values.shape[1:]), torch.nan)
                for output, size in zip(outputs, sizes)
            ]
        )
        for name, values in like.items()
    }
