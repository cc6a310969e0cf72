"""`fluxir bench adapter`: what one model call costs with the adapter, and without."""

import json
import resource
import statistics
import time

import torch

from ..fluxir_core.adapter import FLUX_DEV, AdapterConfig, FluxDimensions, FluxIRAdapter
from ..fluxir_core.tokens import image_ids
from .host import DiffusersHost
from .miniature.train_base import MINI_FLUX


def add_arguments(parser):
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    adapter = subjects.add_parser("adapter", help="one model call with and without the adapter")
    adapter.add_argument("--size", choices=("miniature", "flux-dev"), default="miniature", help="base model's dimensions")
    adapter.add_argument("--pixels", type=int, help="picture's side (default 256, flux-dev 1024)")
    adapter.add_argument("--rank", type=int, default=32, help="SE rank (default 32)")
    adapter.add_argument("--repeats", type=int, default=15, help="timed rounds (default 15)")
    adapter.add_argument("--controlnet", action="store_true", help="time diffusers' FluxControlNetModel in the same run too")


def run(arguments):
    print(json.dumps(bench_adapter(**{k: v for k, v in vars(arguments).items() if k not in ("command", "subject")}), indent=2))


@torch.no_grad()
def bench_adapter(size="miniature", pixels=None, rank=32, repeats=15, controlnet=False):
    """Times the bare model, the model with a FluxIR adapter and, if asked, with a ControlNet, alternating, on random weights.

    Returns a dict with the median seconds of each, the ratios to the bare model (median over the rounds of the ratio within
    a round) and the peak memory in GB. `flux-dev` needs a GPU with 40 GB for bfloat16.
    """
    from diffusers import FluxTransformer2DModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if size == "flux-dev":
        if device == "cpu":
            raise SystemExit("fluxir bench adapter: --size flux-dev needs a CUDA GPU with 40 GB; use --size miniature here.")
        config, dims, dtype, text_tokens = {"guidance_embeds": True}, FLUX_DEV, torch.bfloat16, 512
    else:
        config, dims, dtype, text_tokens = MINI_FLUX, None, torch.float32, 8
    pixels = pixels or (1024 if size == "flux-dev" else 256)

    torch.manual_seed(0)
    with torch.device(device):
        model = FluxTransformer2DModel(**config).to(dtype).eval()
        dims = dims or FluxDimensions.from_state_dict(model.state_dict())
        adapter = FluxIRAdapter(AdapterConfig(dims, rank=rank, text_tokens=text_tokens)).to(dtype).eval()
        host = DiffusersHost(model, adapter)
        tokens = (pixels // 16) ** 2
        x, degraded = torch.randn(2, 1, tokens, 64, dtype=dtype)
        text = torch.randn(1, text_tokens, dims.context_dim, dtype=dtype)
        pooled = torch.randn(1, dims.vec_dim, dtype=dtype)
        ids = image_ids(pixels // 8, pixels // 8)
        t, guidance = torch.full((1,), 0.5), torch.full((1,), 4.0)
        condition = host.prepare(degraded, text, pooled, ids)
        inputs = dict(
            hidden_states=x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t, guidance=guidance,
            img_ids=ids, txt_ids=torch.zeros(text_tokens, 3), return_dict=False,
        )  # fmt: skip
        calls = {
            "bare": lambda: host.bare_velocity(x, t, condition, guidance),
            "fluxir": lambda: host.velocity(x, t, condition, guidance),
        }
        if controlnet:
            from diffusers import FluxControlNetModel

            # Two double blocks and no single ones, as the public FLUX.1-dev ControlNets that are trained from scratch.
            branch_config = {**config, "num_layers": min(2, dims.double_blocks), "num_single_layers": 0}
            branch = FluxControlNetModel(**branch_config).to(dtype).eval()

            def with_controlnet():
                residuals = branch(controlnet_cond=degraded, **inputs)[0]
                return model(controlnet_block_samples=residuals, **inputs)[0]

            calls["controlnet"] = with_controlnet

    seconds = _alternate(calls, repeats, device)
    ratios = {
        name: statistics.median(own / bare for own, bare in zip(seconds[name], seconds["bare"])) for name in calls
    }
    return {
        "size": size, "pixels": pixels, "rank": rank, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "dtype": str(dtype).removeprefix("torch."), "torch": torch.__version__, "repeats": repeats,
        "seconds": {name: round(statistics.median(values), 5) for name, values in seconds.items()},
        "ratio": {name: round(value, 4) for name, value in ratios.items()},
        "peak_gb": round(_peak_bytes(device) / 1e9, 3),
    }  # fmt: skip


def _alternate(calls, repeats, device):
    """Seconds of each call in each of `repeats` rounds, the calls taking turns so that drift hits all alike."""
    seconds = {name: [] for name in calls}
    for repeat in range(repeats + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:  # two rounds of warm-up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _peak_bytes(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
