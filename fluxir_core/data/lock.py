"""Locks between processes, which end with the process that holds them, on every system."""

import errno
import json
import logging
import os
import platform
import sys
import time
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_FILE = ".fluxir-lock"
FAR = 2**30
"""The byte that Windows locks: nothing else can read what it locks, and who holds the lock is written at the beginning."""
TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class Held(Exception):
    """Another process holds the lock."""


def lock(file):
    """Locks the open `file` until it is closed. Raises Held when another process has locked it; a file system that knows no
    locks is warned of, and used as it is."""
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        place = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        os.lseek(file.fileno(), FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file.fileno(), place, os.SEEK_SET)
    except OSError as error:
        if error.errno in TAKEN:
            raise Held from None
        logging.warning("%s cannot be locked (%s); let no other process write there", file.name, error.strerror)


@contextmanager
def locked(folder, option, part=""):
    """Holds `folder`, which is made where it is missing, inside this block; `part` names one of several locks in it.

    Raises ValueError, which names `option` and says who holds it and since when, while another process does.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{LOCK_FILE}{part}", "a+", encoding="utf-8") as file:
        try:
            lock(file)
        except Held:
            file.seek(0)
            raise ValueError(
                f"{option}: {folder} is in use by {_holder(file.read())}; wait for it, or give another folder."
            ) from None
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(text):
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, LookupError, TypeError):
        return "another process"
