"""`fluxir fluxgen`: makes data to train restoration adapters on, in three steps."""

from ..fluxgen import degrade, generate, select
from ..outputs import check_folder

STEPS = {
    "generate": (generate, "draw images with a bare FLUX, into shards"),
    "select": (select, "score images and leave out the worst by any metric"),
    "degrade": (degrade, "make pairs of good and degraded images, into shards"),
}


def add_arguments(parser):
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, (module, summary) in STEPS.items():
        module.add_arguments(steps.add_parser(name, help=summary, description=summary))


def run(arguments):
    check_folder("OUT_DIR", arguments.out)
    STEPS[arguments.step][0].run(arguments)
