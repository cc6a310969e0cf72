"""WebDataset shards: tar files of samples, each some files `<key>.<extension>` in a row, written whole or not at all."""

import io
import json
import os
import re
import tarfile
import uuid
from pathlib import Path
from typing import NamedTuple

from .lock import Held, lock

BLOCK = tarfile.BLOCKSIZE
METADATA = "json"
"""The extension that ends every sample we write: a sample without it was cut off."""


class Span(NamedTuple):
    """`size` bytes at `offset` in the file `path`."""

    path: Path
    offset: int
    size: int

    def open(self):
        """The span as a binary file of its own, which reads no more than it is asked for."""
        return io.BufferedReader(_Window(self))

    def read(self):
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class _Window(io.RawIOBase):
    def __init__(self, span):
        self.file = None  # for `close`, where opening fails
        self.file = open(span.path, "rb")  # noqa: SIM115 (`close` closes it)
        self.span, self.place = span, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.place = max(0, offset + (0, self.place, self.span.size)[whence])
        return self.place

    def readinto(self, buffer):
        assert self.file
        self.file.seek(self.span.offset + self.place)
        data = self.file.read(min(len(buffer), max(0, self.span.size - self.place)))
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)

    def close(self):
        if self.file:
            self.file.close()
        super().close()


class Sample(NamedTuple):
    """A sample of a shard: its key and where the data of its files is, by extension."""

    key: str
    files: dict


def read_index(path):
    """([Sample of each sample in the tar file at `path`], why what follows them cannot be read, or None): by headers alone.

    Files `<key>.<extension>`, the key up to the name's first dot, belong together wherever they are; of two files of one name
    the second begins a sample of its own. Keys stay inside a folder that they are unpacked in: `..` and the like are left out.
    """
    samples, latest, complaint = [], {}, None
    try:
        length = os.path.getsize(path)
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.offset_data + member.size > length:
                    complaint = f"it is cut off in {member.name}"
                    break
                key, extension = _key_and_extension(member.name)
                if key not in latest or extension in latest[key].files:
                    latest[key] = Sample(key, {})
                    samples.append(latest[key])
                latest[key].files[extension] = Span(Path(path), member.offset_data, member.size)
            if complaint is None:
                file.seek(tar.offset)  # tarfile takes a broken header for the end
                if any(file.read(BLOCK)):
                    complaint = "it is broken" + (f" behind {samples[-1].key}" if samples else "")
    except Exception:  # a broken header leads tarfile to any exception
        complaint = "it is cut off or no tar file"
    return samples, complaint


def _key_and_extension(name):
    """The key and the extension of a tar file's member: no folder above, no root, no drive."""
    parts = [part.replace(":", "_") for part in re.split(r"[/\\]+", name) if part not in ("", ".", "..")]
    stem, _, extension = (parts.pop() if parts else "").partition(".")
    return "/".join([*parts, stem]), extension


def _end(span):
    return span.offset + -(-span.size // BLOCK) * BLOCK


def _file(name, data):
    header = tarfile.TarInfo(name)  # no time, no owner: the same samples are the same bytes
    header.size = len(data)
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK)


class ShardWriter:
    """Writes the shard at `path`, sample by sample, under another name until it is complete.

    Use it in a `with` statement. `keys` are the samples that a killed run has left: they stay, and new ones follow. Where
    the statement ends, the shard gets its name; after an exception it waits for the next run. The bytes depend on the
    samples and their order alone. Raises ValueError when another process is writing the same shard.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():  # of an earlier run that was asked for fewer samples
            self.path.replace(self.partial)
        self.file = open(self.partial, "ab")
        try:
            lock(self.file)
        except Held:
            self.file.close()
            raise ValueError(
                f"{self.path} is being written by another process; wait for it, or set RANK and WORLD_SIZE as torchrun does."
            ) from None
        samples = [sample for sample in read_index(self.partial)[0] if METADATA in sample.files]
        self.keys = {sample.key for sample in samples}
        self.file.truncate(_end(samples[-1].files[METADATA]) if samples else 0)
        return self

    def add(self, key, files, metadata):
        """Adds the sample `key` of `files` {extension: bytes} and `metadata`, a dictionary for JSON; it survives a crash."""
        described = json.dumps(metadata, sort_keys=True, ensure_ascii=False).encode()
        for extension, data in (*files.items(), (METADATA, described)):
            self.file.write(_file(f"{key}.{extension}", data))
        self._sync()
        self.keys.add(key)

    def _sync(self):
        self.file.flush()
        os.fsync(self.file.fileno())

    def __exit__(self, kind, *_):
        if kind is None:
            self.file.write(bytes(2 * BLOCK))
            self._sync()
        self.file.close()
        if kind is None:
            self.partial.replace(self.path)


class NewShard(ShardWriter):
    """A ShardWriter of the first of `paths` that is free: what exists is never opened, and a run that fails leaves nothing."""

    def __init__(self, paths):
        self.paths = paths

    def __enter__(self):
        for path in self.paths:
            super().__init__(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                open(self.partial, "xb").close()  # of two runs, the other takes the next path
            except FileExistsError:
                continue
            if not path.exists():
                return super().__enter__()
            self.partial.unlink()
        raise FileExistsError("none of the paths is free")

    def __exit__(self, *exception):
        try:
            super().__exit__(*exception)
        finally:
            self.partial.unlink(missing_ok=True)


def write_whole(path, data):
    """Writes `data`, bytes or text, to `path`: whole or not at all, whatever happens and whoever else writes it.

    Text is UTF-8; what a file's name has that is not, is kept as it is (surrogateescape).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data.encode(errors="surrogateescape") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
