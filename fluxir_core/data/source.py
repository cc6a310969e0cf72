"""Images to train on or to work through, by number: a folder of photos, or of shards."""

import hashlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

import torch

from ..flux.weight_files import parse_json
from ..image.files import SUFFIXES, image_size, read_image
from .shards import METADATA, Span, read_index

CAPTION, DEGRADED = "txt", "lq"


class Record(NamedTuple):
    """One image: `hq` (3, H, W) float32 in [0, 1], `lq` of the same kind or None, `metadata` with `prompt` where known."""

    key: str
    hq: torch.Tensor
    lq: torch.Tensor | None
    metadata: dict


class _Entry(NamedTuple):
    key: str
    name: str  # of the good image, inside the source
    part: str
    hq: Span
    lq: Span | None
    metadata: Span | None
    caption: Span | None


class ImageSource:
    """Random access to the images of `path`: a folder with shards in it, one shard, or a folder of photos and folders.

    In shards the good image is `<key>.hq.<suffix>`, or `<key>.<suffix>` as elsewhere, the degraded one
    `<key>.lq.<suffix>`, and `<key>.json` the metadata; the prompt is there or in `<key>.txt`. Beside a photo, `<name>.txt`
    is its prompt. Of a shard that is cut off, what comes before is used. `keep`, a set of `names`, leaves out the others.

    `names`, `keys`: of the images in order; keys are without suffix and unique. `skipped`: [(name, reason)] of what has
    no place in the source. `fingerprint`: changes with any name or size. Raises ValueError when nothing is left.
    Only headers are read before an image is asked for; files are opened for each, so worker processes can share the source.
    What an image's file holds and a record does not, such as further frames, is logged once.
    """

    def __init__(self, path, keep=None):
        self.path, self.skipped, self._told = Path(path), [], set()
        shards = [self.path] if self.path.is_file() else sorted(self.path.glob("*.tar"))
        found = self._of_shards(shards) if shards else self._of_photos()
        self._entries, seen = [], {}
        for entry in found:
            if not entry.hq.size:
                self.skipped.append((entry.name, "the file is empty"))
            elif entry.key in seen:
                self.skipped.append((entry.name, f"it shares its name with {seen[entry.key]}"))
            else:
                seen[entry.key] = entry.name
                if keep is None or entry.name in keep:
                    self._entries.append(entry)
        if not self._entries:
            reasons = "".join(f"; {name}: {reason}" for name, reason in self.skipped[:3])
            raise ValueError(f"{path} holds no image to use{reasons}; give a folder of photos or of FluxGen's shards.")
        self.names, self.keys = [entry.name for entry in self._entries], [entry.key for entry in self._entries]
        listed = [[entry.key, *(span and span.size for span in entry[3:])] for entry in self._entries]
        self.fingerprint = hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def __len__(self):
        return len(self._entries)

    def __getitem__(self, index):
        """The Record of image `index`. Raises ValueError, naming the file, when it cannot be read."""
        entry = self._entries[index]
        hq, lq = (span and self._pixels(span, entry.name) for span in (entry.hq, entry.lq))
        if lq is not None and lq.shape != hq.shape:
            raise ValueError(f"{entry.name} and its degraded image differ in size; make the pair again.")
        return Record(entry.key, hq, lq, self.metadata_of(index))

    def _pixels(self, span, name):
        image = _read(read_image, span, name)
        for remark in image.remarks:
            if (name, remark) not in self._told:  # an image is read at every epoch
                self._told.add((name, remark))
                logging.warning("%s: %s", name, remark)
        return image.pixels

    def size_of(self, index):
        """(height, width) of image `index`, from its header. Raises ValueError as reading it does."""
        entry = self._entries[index]
        return _read(image_size, entry.hq, entry.name)

    def bytes_of(self, index):
        """How many bytes the file of image `index` has."""
        return self._entries[index].hq.size

    def metadata_of(self, index):
        """The metadata of image `index`. Raises ValueError when it is no JSON object or text."""
        entry, metadata = self._entries[index], {}
        try:
            if entry.caption:
                metadata["prompt"] = entry.caption.read().decode("utf-8-sig").strip()
            if entry.metadata:
                stated = parse_json(entry.metadata.read())
                metadata = {**metadata, **stated}
            if not isinstance(metadata.get("prompt", ""), str):
                raise TypeError
        except (ValueError, TypeError, OSError):
            raise ValueError(
                f"the text beside {entry.name} cannot be read (it is no UTF-8 text, or no JSON object whose prompt is a text); "
                "write it again."
            ) from None
        return metadata

    def parts(self, size=256):
        """{name: range of indices}: what one process works through at a time. A shard each, or `size` photos."""
        if self._entries[0].part:
            parts = {}
            for index, entry in enumerate(self._entries):
                parts[entry.part] = range(parts.get(entry.part, range(index, index)).start, index + 1)
            return parts
        count = len(self)
        return {f"images-{n // size:06d}": range(n, min(n + size, count)) for n in range(0, count, size)}

    def _of_photos(self):
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is no folder; give one of photos or of FluxGen's shards.")
        for path in sorted(self.path.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                name = path.relative_to(self.path)
                key = name.with_suffix("").as_posix().replace(".", "_")  # a shard's keys end at the first dot
                caption = path.with_suffix(f".{CAPTION}")
                caption = _whole(caption) if caption.is_file() else None
                yield _Entry(key, name.as_posix(), "", _whole(path), None, None, caption)

    def _of_shards(self, paths):
        for path in paths:
            samples, complaint = read_index(path)
            if complaint:
                self.skipped.append((path.name, complaint))
            last = max(samples, key=lambda sample: max(span.offset for span in sample.files.values()), default=None)
            for sample in samples:
                key, files = sample
                images = {ext: span for ext, span in files.items() if f".{ext.rpartition('.')[2].lower()}" in SUFFIXES}
                degraded = next((ext for ext in images if ext.startswith(f"{DEGRADED}.")), None)
                good = next((ext for ext in images if ext.startswith("hq.") or "." not in ext), None)
                cut = complaint and sample is last and METADATA not in files
                if good is None or cut:
                    self.skipped.append((f"{path.name}/{key}", "it is cut off" if cut else "it holds no image"))
                    continue
                yield _Entry(
                    key,
                    f"{path.name}/{key}.{good}",
                    path.stem,
                    files[good],
                    files.get(degraded),
                    files.get(METADATA),
                    files.get(CAPTION),
                )


def _whole(path):
    return Span(path, 0, path.stat().st_size)


def _read(function, span, name):
    try:
        with span.open() as file:
            return function(file, name)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror}); make the list of images again.") from None
