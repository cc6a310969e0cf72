"""`fluxir bench training`: real optimizer steps on random weights, timed, beside what `fluxir train --plan` says."""

import statistics
import time
from typing import Any

import torch

from ..engine.average import MovingAverage
from ..engine.draws import Draws
from ..recipes.config import RECIPES
from ..recipes.memory_plan import accumulate, bundled, plan_memory, random_batch, random_objective, start_form

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "4090": 165, "3090": 71}
"""Dense bfloat16 TFLOP/s that the makers state, by a part of the device's name."""


def bench_training(path, recipe, steps=20):
    """Runs `steps` steps of the configuration file `path` for `recipe` (one of RECIPES), a micro-batch each.

    Returns a dict: the median seconds of a step, the peak memory of the tensors in GB, the plan's peak and their ratio, the
    steps' TFLOP/s and, on a known GPU, its share of what the maker states. On a GPU the peak is CUDA's allocator's; on a CPU
    torch's profiler's, over one step more. Raises ValueError where FLUX.1-dev's size is asked for without a GPU.
    """
    config = RECIPES[recipe].load(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not bundled(config):
        raise ValueError(f"--config: {path} is for FLUX.1-dev, which needs a GPU; use a configuration of the miniature here.")
    planned = plan_memory(config)

    def measured():
        objective = random_objective(config, device, start_form(config))
        trained = [p for p in objective.adapter.parameters() if p.requires_grad]
        optimizer, average = config.optimizer.make(trained), MovingAverage(trained, config.optimizer.average)
        batch, rows, seconds = random_batch(config, device), range(config.run.micro_batch), []
        accumulates = accumulate(config, trained)
        for step in range(steps):
            started = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=config.base.precision != "float32"):
                losses = objective(batch, Draws(config.run.seed, step, rows, device))
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(trained, config.optimizer.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=not accumulates)
            average.update()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        return seconds

    seconds, peak = _with_peak(measured, device)
    second = statistics.median(seconds[2:] or seconds)
    tflops = planned["tflop_per_step"] / (config.run.batch / config.run.micro_batch) / second
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    stated = next((value for part, value in PEAK_TFLOPS.items() if part in name), None)
    return {
        "config": str(path),
        "recipe": recipe,
        "device": name,
        "torch": torch.__version__,
        "steps": steps,
        "micro_batch": config.run.micro_batch,
        "seconds_per_micro_step": round(second, 4),
        "peak_gb": round(peak / 1e9, 4),
        "planned_peak_gb": planned["peak_gb"],
        "planned_over_measured": round(planned["peak_gb"] / (peak / 1e9), 4),
        "tflop_per_s": round(tflops, 2),
        "utilization": round(tflops / stated, 3) if stated else None,
    }


def _with_peak(function, device):
    """(what `function` returns, the most bytes of tensors that it had at once)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return function(), torch.cuda.max_memory_allocated() - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    live = peak = 0
    recorded: Any = profiler.profiler
    for event in recorded.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return result, peak
