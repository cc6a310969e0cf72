"""Tensors that are computed once and kept in a folder, each in a file of its own."""

import hashlib
import logging
import os
import uuid
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..engine.checked_files import CHECKSUM, checksum


class TensorCache:
    """Named tensors by key under `folder`. `identity` says what they depend on besides: another one is another cache.

    Processes may share a folder: a file appears whole or not at all. One that is cut off counts as missing; one that does not
    match its checksum counts as missing when it is read, with a warning.
    """

    def __init__(self, folder, *identity):
        self.folder = Path(folder) / _digest(*identity)

    def __contains__(self, key):
        try:
            with safe_open(self._path(key), "pt"):  # reads the header, which the file's length has to fit
                return True
        except (OSError, SafetensorError):
            return False

    def get(self, key) -> dict | None:
        """The tensors of `key`, or None."""
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                stated = (file.metadata() or {}).get(CHECKSUM)
                tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            stated, tensors = None, None
        if tensors is None or stated != checksum(tensors):
            logging.warning("%s is broken; it is made again", path)
            return None
        return tensors

    def put(self, key, tensors):
        """Keeps `tensors` {name: tensor} under `key`."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        tensors = {name: tensors[name].cpu().contiguous() for name in sorted(tensors)}
        try:
            save_file(tensors, partial, {CHECKSUM: checksum(tensors)})
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _path(self, key):
        name = _digest(key)
        return self.folder / name[:2] / f"{name}.safetensors"


def _digest(*identity):
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:24]
