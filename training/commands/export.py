"""`fluxir export`: the file that the nodes load, from a training run's checkpoint."""

from pathlib import Path

from ..arguments import whole
from ..outputs import check_file
from ..recipes.export import DTYPES, LICENSE, write_adapter


def add_arguments(parser):
    parser.add_argument("work", type=Path, help="the run's --work folder")
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    parser.add_argument("--step", type=whole(0), help="the checkpoint after so many steps (default: the latest)")
    parser.add_argument("--weights", choices=("average", "last"), default="average", help="default: the moving average")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="default bf16, half the size of float32")
    parser.add_argument(
        "--license", help=f"the weights' license, for the file's metadata (default: that of the file it started from, or {LICENSE})"
    )


def run(arguments):
    check_file("OUTPUT", arguments.output, (".safetensors",), make_folder=True)
    write_adapter(arguments.work, arguments.output, arguments.step, arguments.weights, arguments.dtype, arguments.license)
