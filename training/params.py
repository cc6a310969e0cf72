"""`fluxir params`: the adapter's parameters at FLUX.1-dev size, as in the paper's Table 2."""

import json

from ..fluxir_core.adapter import FLUX_DEV, AdapterConfig, FluxIRAdapter

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


def add_arguments(parser):
    parser.add_argument("--rank", default="32", help="rank of the SE layers, or 'full' (default 32)")


def run(arguments):
    if arguments.rank != "full" and not (arguments.rank.isdigit() and int(arguments.rank) > 0):
        raise SystemExit(f"fluxir params: --rank is {arguments.rank}; use a positive whole number or 'full'.")
    counts = count_parameters(None if arguments.rank == "full" else int(arguments.rank))
    millions = {name: round(count / 1e6, 1) for name, count in counts.items()}
    print(json.dumps({"rank": arguments.rank, **counts, "millions": millions}))
