"""`fluxir plan`: what a test-time-scaling preset costs, before anything runs."""

import json

from ...fluxir_core.flow.rectified_flow import flux_sigmas
from ...fluxir_core.searches.presets import PRESETS
from ...fluxir_core.searches.search import estimate_cost
from ..arguments import number, steps


def add_arguments(parser):
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="the search (default quick)")
    parser.add_argument("--steps", type=steps, default=25, help="sampling steps (default 25)")
    parser.add_argument("--shift", type=number(-20, 20), default=0.0, help="FLUX's time shift mu; 0 is the uniform grid (default)")


def run(arguments):
    sigmas = flux_sigmas(arguments.steps, arguments.shift)
    print(json.dumps({"preset": arguments.preset, **estimate_cost(PRESETS[arguments.preset], sigmas)}, indent=2))
