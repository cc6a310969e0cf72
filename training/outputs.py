"""Where results go: looked at before anything is computed, and written so that nothing is lost."""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

from ..fluxir_core.data.shards import write_whole


def check_file(option, path, suffixes=(), make_folder=False):
    """Checks that a file can be written; nothing is left behind.

    Args:
        option: that the errors name.
        path: of the file.
        suffixes: the endings, with their dots, that its name may have; by default any.
        make_folder: its folder may be missing where it can be made.

    Raises:
        ValueError: the file cannot be written, in one sentence.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError(f"{option}: {path} is a folder; give the name of a file.")
        if path.exists() and not path.is_file():
            raise ValueError(f"{option}: {path} is a device or a pipe; give the name of a file.")
        if suffixes and path.suffix.lower() not in suffixes:
            kinds = " or ".join(suffixes)
            raise ValueError(f"{option}: {path} is no {kinds[1:].upper()} file; let it end in {kinds}.")
        folder = path.resolve().parent
        if make_folder:
            check_folder(option, folder)
        elif not folder.is_dir():
            raise ValueError(f"{option}: the folder of {path} is missing; make it or name another.")
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError(f"{option}: {path} is write-protected; name another file.")
        if folder.is_dir():
            _try_to_write(folder, path.name)
    except OSError as error:
        raise ValueError(f"{option}: {str(path)[:200]} cannot be written ({error.strerror}); name another file.") from None


def check_folder(option, path):
    """Raises ValueError, one sentence that names `option`, unless `path` is a folder that can be written to, or can be made."""
    path = Path(path)
    try:
        there = next(place for place in (path.resolve(), *path.resolve().parents) if place.exists())
        if not there.is_dir():
            raise ValueError(f"{option}: {there} is a file; give a folder.")
        _try_to_write(there)
    except OSError as error:
        raise ValueError(f"{option}: {str(path)[:200]} cannot be written to ({error.strerror}); give another folder.") from None


def _try_to_write(folder, name=""):
    """Makes a file in `folder`, with the longest name that writing `name` takes, and removes it again."""
    trial = folder / f"{name}.{uuid.uuid4().hex}.partial"
    trial.touch()
    trial.unlink()


def check_apart(outputs, inputs=()):
    """Raises ValueError where two of `outputs` {option: path}, or one of them and one of `inputs`, are the same place."""
    seen = {Path(path).resolve(): option for option, path in dict(inputs).items() if path}
    for option, path in outputs.items():
        if not path:
            continue
        other = seen.setdefault(Path(path).resolve(), option)
        if other != option:
            raise ValueError(f"{option} and {other} are the same, {path}; name two places.")


def deliver(path, write):
    """Calls `write(path)`, which makes a file or a folder there. Where that fails, it is made at another place, and ValueError
    names it: the result is not lost."""
    path = Path(path)
    try:
        write(path)
    except OSError as error:
        reason = error.strerror or str(error)
        for folder in map(Path, (".", os.path.expanduser("~"), tempfile.gettempdir())):
            rescued = folder.resolve() / f"fluxir-{uuid.uuid4().hex[:8]}" / path.name
            try:
                rescued.parent.mkdir()
                write(rescued)
            except OSError:
                shutil.rmtree(rescued.parent, ignore_errors=True)
                continue
            raise ValueError(f"{path} cannot be written ({reason}); the result is in {rescued}.") from None
        raise ValueError(f"{path} cannot be written ({reason}), nor can any other place; make room and run it again.") from None


def deliver_data(path, data):
    """`deliver` of `data`, bytes or text, as a file: whole or not at all. A link is followed."""
    deliver(Path(path).resolve(), lambda place: write_whole(place, data))
