"""The `fluxir` command: one module a subcommand, imported when it is asked for."""

import argparse
import importlib
import io
import logging
import os
import re
import sys
import warnings

from ..fluxir_core.execution.oom import is_out_of_memory
from .engine.stopping import Stopped, terminated

COMMANDS = {
    "params": ("params", "count the adapter's parameters at FLUX.1-dev size"),
    "restore": ("restore", "restore images"),
    "eval": ("evaluate", "measure restored images"),
    "study": ("study", "compare methods blind, by people's votes"),
    "plan": ("plan", "what a search costs before it runs"),
    "export": ("export", "write the file that the nodes load from a training run"),
    "convert": ("convert", "bring public weights into one safetensors file"),
    "train": ("train", "train the weights the nodes load"),
    "fluxgen": ("fluxgen", "make data to train restoration adapters on"),
    "schedule": ("schedule", "find the cheapest few-step schedules of a model"),
    "bench": ("bench", "measure what the adapter costs"),
    "fit": ("fit", "fit a model that ships with the package"),
    "results": ("results", "regenerate the tables of docs/results"),
}
DEBUG = "--debug"
REFUSED, FAILED, INTERRUPTED = 2, 1, 130
"""Exit statuses: what was given cannot be used; the machine or the program failed; Ctrl-C or SIGTERM."""


class Ended(SystemExit):
    """Ends the program with `status`; its text is the sentence that was written to the error output."""

    def __init__(self, sentence, status):
        super().__init__(sentence)
        self.code = status
        if sentence:
            print(sentence, file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Raises ValueError where argparse prints its usage and exits."""

    def error(self, message):
        message = re.sub(r"^argument (\S+): ", r"\1: ", message).replace(": is ", " is ", 1).rstrip(".")
        raise ValueError(f"{message}." if len(message) <= 500 else f"{message[:500]} ...")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    debug, argv = DEBUG in argv, [argument for argument in argv if argument != DEBUG]
    if isinstance(sys.stdout, io.TextIOWrapper):  # arrows on any system, and file names that are no text
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a missing CPU kernel whenever it is imported
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd files, which the image reader names itself
    command = f"fluxir {argv[0]}" if argv and argv[0] in COMMANDS else "fluxir"
    try:
        with terminated():
            _run(argv)
    except Stopped as stopped:
        logging.info("%s", stopped)
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Ended("", FAILED) from None
    except KeyboardInterrupt:
        raise Ended(f"{command}: stopped.", INTERRUPTED) from None
    except Exception as error:
        if debug:
            raise
        sentence, status = explain(error)
        raise Ended(f"{command}: {sentence}", status) from error


def _run(argv):
    parser = Parser(prog="fluxir", description="Image restoration with FLUX: the pack's command line.")
    parser.add_argument(DEBUG, action="store_true", help="show where in the program an error came from")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subcommands.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:  # only the chosen command pays for its imports
            command = importlib.import_module(f".commands.{module}", __package__)
            command.add_arguments(subparser)
    if any("\0" in argument for argument in argv):
        raise ValueError("an argument holds the character 0, which no path has; leave it out.")
    arguments = parser.parse_args(argv)
    command.run(arguments)


def explain(error):
    """(one sentence on `error`, the exit status): what the user gave, what is missing, what the machine lacks, or a fault."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text:
        return text, REFUSED
    if isinstance(error, ImportError):
        library = (error.name or text).partition(".")[0]
        return f"the library {library} cannot be imported; run `pip install -e .[train]` in the pack's folder.", REFUSED
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename} cannot be used ({error.strerror})" if error.filename else f"a file failed ({error.strerror})"
        return f"{where}; check the path, its rights and the free space.", REFUSED
    if isinstance(error, MemoryError) or is_out_of_memory(error) or "DefaultCPUAllocator" in text:
        return "memory ran out; use smaller images, or --tile where the command has it, or a machine with more.", FAILED
    return f"an error that it does not know ({type(error).__name__}: {text[:300]}); run it with {DEBUG}, and report it.", FAILED


if __name__ == "__main__":
    main()
