"""What commands take as arguments: numbers in their range, and a sentence for any other."""

import argparse
import math
import os
from pathlib import Path

LARGEST_SEED = 2**64 - 1
"""ComfyUI's, and the largest that torch's generator takes."""
MOST_STEPS = 10_000
"""ComfyUI's too."""


def whole(least=1, most=1_000_000):
    """A type for argparse: whole numbers from `least` to `most`."""

    def read(text):
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"is {text[:40]!r}; use a whole number of at least {least}.") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"is {text[:40]}; use at least {least}.")
        if value > most:
            raise argparse.ArgumentTypeError(f"is {text[:40]}; use at most {most}.")
        return value

    return read


def number(least, most):
    """A type for argparse: numbers from `least` to `most`."""

    def read(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"is {text[:40]}; use a value from {least:g} to {most:g}.")
        return value

    return read


def seed(text):
    """A type for argparse: seeds."""
    return whole(0, LARGEST_SEED)(text)


def steps(text):
    """A type for argparse: counts of sampling steps."""
    return whole(1, MOST_STEPS)(text)


def share(text):
    """A type for argparse: shares above 0, at most 1."""
    return number(1e-6, 1)(text)


def text_file(text):
    """A type for argparse: Paths of files that are read to their end, which a device or a pipe may not have."""
    if os.path.exists(text) and not os.path.isfile(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"is {text}, a device or a pipe; give the name of a file.")
    return Path(text)
