"""The `fluxir` command: one module a subcommand, imported when it is asked for."""

import argparse
import importlib
import logging
import sys

from .engine.stopping import Stopped

COMMANDS = {
    "params": ("params", "count the adapter's parameters at FLUX.1-dev size"),
    "restore": ("restore", "restore an image"),
    "eval": ("evaluate", "measure restored images"),
    "plan": ("plan", "what a search costs before it runs"),
    "export": ("export", "write the file that the nodes load from a training run"),
    "train": ("train", "train the weights the nodes load"),
    "fluxgen": ("fluxgen", "make data to train restoration adapters on"),
    "schedule": ("schedule", "find the cheapest few-step schedules of a model"),
    "bench": ("bench", "measure what the adapter costs"),
    "fit": ("fit", "fit a model that ships with the package"),
    "results": ("results", "regenerate the README's tables"),
}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a missing CPU kernel whenever it is imported
    parser = argparse.ArgumentParser(prog="fluxir", description="Image restoration with FLUX: the pack's command line.")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subcommands.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:  # only the chosen command pays for its imports
            command = importlib.import_module(f".commands.{module}", __package__)
            command.add_arguments(subparser)
    arguments = parser.parse_args(argv)
    try:
        command.run(arguments)
    except Stopped as stopped:
        logging.info("%s", stopped)
    except ValueError as error:  # what the user gave: a file, a folder, a number
        raise SystemExit(f"fluxir {arguments.command}: {error}") from error


if __name__ == "__main__":
    main()
