"""What every subject of the fuzz suite shares: seeded cases within a budget of time, hostile values, and the oracles.

A subject is a file `test_<subject>.py` with a loop over `cases(...)`. The same seed draws the same cases.
FLUXIR_FUZZ_SECONDS is the time of each loop (by default a few seconds, two minutes in all), FLUXIR_FUZZ_SEED the seed (default 0), FLUXIR_FUZZ_CASE the only
case to run, for who repeats a failure.
"""

import hashlib
import os
import random
import re
import time
from contextlib import contextmanager

SECONDS, SEED, CASE = "FLUXIR_FUZZ_SECONDS", "FLUXIR_FUZZ_SEED", "FLUXIR_FUZZ_CASE"
FEWEST = 3
"""Cases that run however little time there is."""
FOREIGN = re.compile(
    r"Traceback|object at 0x|NoneType|Errno|KeyError|TypeError|unsupported operand|out of range|codec can't|invalid literal"
    r"|could not convert|has no attribute|size mismatch|Error\(s\) in|must be str|not subscriptable|unpack|positional argument"
    r"|unexpected keyword|<class|\bpickle|dtype=|weights_only"
)
"""What only a library, or Python itself, would say."""


class Draw(random.Random):
    """The random choices of one case."""

    def __init__(self, subject, seed, number):
        super().__init__(f"{subject} {seed} {number}")
        self.subject, self.number, self.name = subject, number, f"{subject}: {SEED}={seed} {CASE}={number}"

    def maybe(self, share=0.5):
        return self.random() < share

    def mutated(self, data, most=4):
        """`data` (bytes) with one to `most` accidents: bits, bytes and blocks changed, cut, doubled, moved or put in."""
        for _ in range(self.randint(1, most)):
            data = self.choice(ACCIDENTS)(self, data) if data else self.randbytes(self.randrange(64))
        return data


def _place(draw, data):
    """Often near the beginning, where headers are."""
    return draw.randrange(len(data) if draw.maybe() else min(len(data), 200))


def _bit(draw, data):
    at = _place(draw, data)
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def _number(draw, data):
    at, width = _place(draw, data), draw.choice((1, 2, 4, 8))
    value = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, draw.getrandbits(64))) % 2 ** (8 * width)
    return data[:at] + value.to_bytes(width, draw.choice(("little", "big"))) + data[at + width :]


def _cut(draw, data):
    return data[: draw.randrange(len(data))]


def _block(draw, data):
    begin, length = _place(draw, data), draw.choice((1, 4, 16, 512))
    taken, to = data[begin : begin + length], _place(draw, data)
    rest = data if draw.maybe() else data[:begin] + data[begin + length :]
    return rest[:to] + taken + rest[to:]


def _noise(draw, data):
    at = _place(draw, data)
    return data[:at] + draw.randbytes(draw.choice((1, 8, 64))) + data[at + draw.choice((0, 8, 64)) :]


ACCIDENTS = (_bit, _bit, _number, _number, _cut, _block, _noise)


def cases(subject, seconds):
    """The Draws of `subject`, for `seconds` unless the environment says otherwise."""
    seed = int(os.environ.get(SEED, 0))
    if CASE in os.environ:
        yield Draw(subject, seed, int(os.environ[CASE]))
        return
    ends, number = time.monotonic() + float(os.environ.get(SECONDS, seconds)), 0
    while number < FEWEST or time.monotonic() < ends:
        yield Draw(subject, seed, number)
        number += 1


@contextmanager
def repeatable(draw, about=""):
    """A failure inside this block says how to repeat it."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{draw.name} {about}: {type(error).__name__}: {error}") from error


def assert_sentence(text, *names):
    """One sentence that an artist understands: one line, one full stop at its end, no foreign text, all of `names` in it."""
    text = str(text)
    assert text and "\n" not in text, f"no single line: {text!r}"
    assert text.rstrip().endswith((".", "...")), f"no sentence: {text!r}"
    assert not FOREIGN.search(text), f"foreign text {FOREIGN.search(text)[0]!r} in {text!r}"
    for name in names:
        assert name in text, f"{name!r} is not named in {text!r}"


def digest(folder):
    """{name: hash} of every file under `folder`: whether inputs were left alone."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
