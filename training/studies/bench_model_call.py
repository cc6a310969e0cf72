"""What one model call costs with an adapter, and without, on random weights."""

import statistics
import sys
import time
from typing import Any

import torch

from ...fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from ...fluxir_core.flux.dimensions import FLUX_DEV, FluxDimensions
from ...fluxir_core.flux.tokens import image_ids
from ...fluxir_core.lora.lora import LoRA
from ...fluxir_core.ummf.mode import ConditionMode
from ..diffusers_host.fluxir_host import FluxIRHost
from ..diffusers_host.ummf_host import UMMFHost
from ..miniature.train_base import MINI_FLUX


@torch.no_grad()
def bench_adapter(size="miniature", pixels=None, rank=32, repeats=15, controlnet=False) -> dict[str, Any]:
    """Times the bare model, the model with a FluxIR adapter and, if asked, with a ControlNet, alternating.

    Args:
        size: "miniature", or "flux-dev", which needs a GPU with 40 GB, for bfloat16.
        pixels: a side of the image; None for 256, or 1024 for "flux-dev".
        rank: of the adapter.
        repeats: rounds.
        controlnet: whether a ControlNet is timed too.

    Returns:
        A dict with the median `seconds` of each, the `ratio` to the bare model (median over the rounds of the ratio within a
        round), the peak memory `peak_gb`, and what was timed where.

    Raises:
        ValueError: "flux-dev" without a GPU.
    """
    base = _Base(size, pixels)
    with torch.device(base.device):
        config = AdapterConfig(base.dims, rank=rank, text_tokens=base.text.shape[1])
        host = FluxIRHost(base.model, FluxIRAdapter(config).to(base.dtype).eval())
        condition = host.prepare(base.degraded, base.text, base.pooled, base.ids)
        calls = {
            "bare": lambda: host.bare_velocity(base.x, base.t, condition, base.guidance),
            "fluxir": lambda: host.velocity(base.x, base.t, condition, base.guidance),
        }
        if controlnet:
            from diffusers import FluxControlNetModel

            # Two double blocks and no single ones, as the public FLUX.1-dev ControlNets that are trained from scratch.
            branch_config = {**base.config, "num_layers": min(2, base.dims.double_blocks), "num_single_layers": 0}
            branch: Any = FluxControlNetModel(**branch_config)
            branch = branch.to(base.dtype).eval()
            inputs = dict(
                hidden_states=base.x,
                encoder_hidden_states=base.text,
                pooled_projections=base.pooled,
                timestep=base.t,
                guidance=base.guidance,
                img_ids=base.ids,
                txt_ids=torch.zeros(base.text.shape[1], 3),
                return_dict=False,
            )

            def with_controlnet():
                residuals = branch(controlnet_cond=base.degraded, **inputs)[0]
                return base.model(controlnet_block_samples=residuals, **inputs)[0]

            calls["controlnet"] = with_controlnet
    return base.measure(calls, repeats) | {"rank": rank}


@torch.no_grad()
def bench_condition(size="miniature", pixels=None, rank=16, repeats=15) -> dict[str, Any]:
    """Times the bare model and UMMF's condition, of the image's own size, alternating.

    The condition is in joint attention; attends to itself and is computed in every call; does so with its keys and values kept.

    Args:
        size: "miniature", or "flux-dev", which needs a GPU with 40 GB, for bfloat16.
        pixels: a side of the image; None for 256, or 1024 for "flux-dev".
        rank: of the LoRA.
        repeats: rounds.

    Returns:
        A dict as `bench_adapter`.

    Raises:
        ValueError: "flux-dev" without a GPU.
    """
    base = _Base(size, pixels)
    with torch.device(base.device):
        lora = LoRA.new(base.dims, rank).to(base.dtype).eval()
    host = UMMFHost(base.model, lora, ConditionMode())
    condition = host.prepare(base.degraded, base.text, base.pooled, base.ids)

    def call(strength, attention, kept):
        host.strength, host.branch.mode = strength, ConditionMode(attention=attention)
        if not kept:
            host.cache.clear()
        host.velocity(base.x, base.t, condition, base.guidance)

    calls = {
        "bare": lambda: call(0, "alone", True),
        "joint attention": lambda: call(1, "joint", True),
        "attending to itself, computed in every call": lambda: call(1, "alone", False),
        "attending to itself, kept": lambda: call(1, "alone", True),
    }
    return base.measure(calls, repeats) | {"rank": rank}


class _Base:
    """A FLUX transformer of random weights and one call's inputs, on the GPU where there is one."""

    def __init__(self, size, pixels):
        from diffusers import FluxTransformer2DModel

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config: dict[str, Any] = MINI_FLUX
        self.dtype, text_tokens = torch.float32, 8
        if size == "flux-dev":
            if self.device == "cpu":
                raise ValueError("--size flux-dev needs a CUDA GPU with 40 GB; use --size miniature here.")
            self.config, self.dtype, text_tokens = {"guidance_embeds": True}, torch.bfloat16, 512
        self.size, self.pixels = size, pixels or (1024 if size == "flux-dev" else 256)
        torch.manual_seed(0)
        with torch.device(self.device):
            model: Any = FluxTransformer2DModel(**self.config)
            self.model = model.to(self.dtype).eval()
            self.dims = FLUX_DEV if size == "flux-dev" else FluxDimensions.from_state_dict(self.model.state_dict())
            self.x, self.degraded = torch.randn(2, 1, (self.pixels // 16) ** 2, 64, dtype=self.dtype)
            self.text = torch.randn(1, text_tokens, self.dims.context_dim, dtype=self.dtype)
            self.pooled = torch.randn(1, self.dims.vec_dim, dtype=self.dtype)
            self.ids = image_ids(self.pixels // 8, self.pixels // 8).to(self.device)
            self.t, self.guidance = torch.full((1,), 0.5), torch.full((1,), 4.0)

    def measure(self, calls, repeats) -> dict[str, Any]:
        """Seconds of each call (the median), their ratio to "bare" (the median of the ratios within a round), and the rest
        that a reader must know."""
        seconds = self._alternate(calls, repeats)
        ratios = {name: statistics.median(own / bare for own, bare in zip(seconds[name], seconds["bare"])) for name in calls}
        return {
            "size": self.size,
            "pixels": self.pixels,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "dtype": str(self.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "repeats": repeats,
            "seconds": {name: round(statistics.median(values), 5) for name, values in seconds.items()},
            "ratio": {name: round(value, 4) for name, value in ratios.items()},
            "peak_gb": round(self._peak_bytes() / 1e9, 3),
        }

    def _alternate(self, calls, repeats):
        """Seconds of each call in each of `repeats` rounds, the calls taking turns so that drift hits all alike."""
        seconds = {name: [] for name in calls}
        for repeat in range(repeats + 2):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                if self.device == "cuda":
                    torch.cuda.synchronize()
                if repeat >= 2:  # two rounds of warm-up
                    seconds[name].append(time.perf_counter() - started)
        return seconds

    def _peak_bytes(self):
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        if sys.platform == "win32":
            import psutil

            return psutil.Process().memory_info().peak_wset
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # kB on Linux only
