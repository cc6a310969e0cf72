"""Calls in parts that fit into memory."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.execution.micro_batches import MicroBatches
from comfyui_fluxir.fluxir_core.execution.oom import is_out_of_memory


def test_candidates_are_called_a_few_at_a_time_and_fewer_when_memory_runs_out():
    sizes = []

    def doubled(rows):
        sizes.append(len(rows))
        if len(rows) > 4:
            raise torch.cuda.OutOfMemoryError("pretended")
        return {"always": 2 * rows, **({"sometimes": rows} if rows[0] == 0 else {})}

    calls, rows = MicroBatches(2, 5), torch.arange(10.0)
    found = calls(doubled, rows)
    assert sizes == [10, 4, 4, 2] and calls.size == 2
    assert torch.equal(found["always"], 2 * rows)
    torch.testing.assert_close(found["sometimes"], rows.where(rows < 4, torch.nan), equal_nan=True)
    calls.size = 1
    with pytest.raises(torch.cuda.OutOfMemoryError):
        calls(lambda *_: doubled(torch.zeros(5)), rows)


def test_torchs_ways_to_run_out_of_memory_are_told_from_other_errors():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError())
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert not is_out_of_memory(torch.AcceleratorError("CUDA error: an illegal memory access"))
    assert not is_out_of_memory(RuntimeError("out of memory"))
