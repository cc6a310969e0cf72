"""Files of tensors with a checksum: written whole or not at all, and never read when they are broken."""

import hashlib
import logging
import os

import torch

CHECKSUM, STATE = "checksum", "state"


class BrokenFile(ValueError):
    """A file that is not what was written: cut off, overwritten, or changed by a single bit."""


def checksum(tree):
    """The SHA-256 of `tree`: dicts, lists and tuples of tensors and plain values; it follows keys, types, shapes and values."""
    digest = hashlib.sha256()
    for part in _parts(tree):
        digest.update(part)
    return digest.hexdigest()


def _parts(tree):
    if isinstance(tree, dict):
        yield b"{"
        for key, value in tree.items():
            yield repr(key).encode()
            yield from _parts(value)
        yield b"}"
    elif isinstance(tree, (list, tuple)):
        yield b"["
        for value in tree:
            yield from _parts(value)
        yield b"]"
    elif isinstance(tree, torch.Tensor):
        yield f"{tree.dtype}{tuple(tree.shape)}".encode()
        yield memoryview(tree.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    else:
        yield f"{tree!r},".encode()


def write_checked(path, state, before=None):
    """torch.save of `state` with its checksum to `path`, so that a crash at any moment leaves either the old file or the new.

    The old file is kept as `before`, where that is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "wb") as file:
            torch.save({CHECKSUM: checksum(state), STATE: state}, file)
            file.flush()
            os.fsync(file.fileno())
        if before and path.exists():
            os.replace(path, before)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_checked(path):
    """The state that `write_checked` wrote to `path`, on the CPU. Raises BrokenFile when it is anything else; runs no code in it."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # what is no such file leads torch's reader to any exception
        raise BrokenFile(f"{path} cannot be read ({type(error).__name__})") from None
    if not isinstance(saved, dict) or saved.keys() != {CHECKSUM, STATE}:
        raise BrokenFile(f"{path} has no checksum")
    if saved[CHECKSUM] != checksum(saved[STATE]):
        raise BrokenFile(f"{path} does not match its checksum")
    return saved[STATE]


def read_or_none(path):
    """As `read_checked`; None where there is no such file and, with a warning, where it is broken."""
    try:
        return read_checked(path)
    except FileNotFoundError:
        return None
    except BrokenFile as error:
        logging.warning("%s; it is made again", error)
        return None


def misfit(saved, own):
    """Why the tree `saved` cannot be loaded where `own` is, a sentence's part, or None: tensors of `own` that it lacks or has in
    another shape. What `saved` has beyond is not looked at: an optimizer has no state before its first step."""
    found = dict(_shapes(saved))
    for place, shape in _shapes(own):
        if place not in found:
            return f"it lacks {place}"
        if found[place] != shape:
            return f"{place} has the shape {list(found[place])}, not {list(shape)}"
    return None


def _shapes(tree, place=""):
    if isinstance(tree, torch.Tensor):
        yield place, tuple(tree.shape)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _shapes(value, f"{place}.{key}" if place else str(key))
    elif isinstance(tree, (list, tuple)):
        for number, value in enumerate(tree):
            yield from _shapes(value, f"{place}.{number}")
