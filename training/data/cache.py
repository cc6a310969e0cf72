"""Tensors that are computed once and kept in a folder, each in a file of its own."""

import hashlib
import os
import uuid
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file


class TensorCache:
    """Named tensors by key under `folder`. `identity` says what they depend on besides: another one is another cache.

    Processes may share a folder: a file appears whole or not at all, and one that is cut off or cannot be read counts as
    missing.
    """

    def __init__(self, folder, *identity):
        self.folder = Path(folder) / _digest(*identity)

    def __contains__(self, key):
        try:
            with safe_open(self._path(key), "pt"):  # reads the header, which the file's length has to fit
                return True
        except (OSError, SafetensorError):
            return False

    def get(self, key):
        """The tensors of `key`, or None."""
        try:
            return load_file(self._path(key))
        except (OSError, SafetensorError):
            return None

    def put(self, key, tensors):
        """Keeps `tensors` {name: tensor} under `key`."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)

    def _path(self, key):
        name = _digest(key)
        return self.folder / name[:2] / f"{name}.safetensors"


def _digest(*identity):
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:24]
