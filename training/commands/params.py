"""`fluxir params`: an adapter's parameters at FLUX.1-dev size, as in the papers."""

import json

from ...fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from ...fluxir_core.flux.dimensions import FLUX_DEV
from ...fluxir_core.lora.lora import LoRA
from ..arguments import whole

TEXT_TOKENS = 512


def count_parameters(rank):
    """Parameters of FLUX.1-dev's adapter with SE layers of `rank` (None: full rank), built on the meta device.

    Returns {"se", "rest", "total"}: the SE layers, the MM-DiT block with its embedders and learned prompts, their sum.
    """
    adapter = FluxIRAdapter(AdapterConfig(FLUX_DEV, rank, TEXT_TOKENS), device="meta")
    counts = {"se": 0, "rest": 0}
    for name, parameter in adapter.named_parameters():
        counts["se" if name.startswith("se_") else "rest"] += parameter.numel()
    return {**counts, "total": sum(counts.values())}


def count_ummf(rank):
    """Parameters of FLUX.1-dev's UMMF LoRA of `rank`: {"modules", "total"}."""
    lora = LoRA.new(FLUX_DEV, rank, device="meta")
    return {"modules": len(lora.shapes), "total": sum(parameter.numel() for parameter in lora.parameters())}


def add_arguments(parser):
    parser.add_argument("--adapter", choices=("fluxir", "ummf"), default="fluxir", help="FluxIR's, or UMMF's LoRA")
    parser.add_argument("--rank", type=_rank, help="rank of the SE layers or the LoRA (default 32, UMMF 16), or FluxIR's 'full'")


def _rank(text):
    return text if text == "full" else str(whole(1, 4096)(text))


def run(arguments):
    ummf = arguments.adapter == "ummf"
    rank = arguments.rank or ("16" if ummf else "32")
    if ummf and rank == "full":
        raise ValueError("--rank is full, which --adapter ummf does not have; use a whole number.")
    counts = count_ummf(int(rank)) if ummf else count_parameters(None if rank == "full" else int(rank))
    millions = {name: round(count / 1e6, 1) for name, count in counts.items() if name != "modules"}
    print(json.dumps({"rank": rank, **counts, "millions": millions}))
