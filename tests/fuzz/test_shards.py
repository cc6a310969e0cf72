"""Shards that were damaged, or made by anybody: samples are read as they were written, or named as skipped."""

import io
import json
import logging
import tarfile

import pytest
import torch
from comfyui_fluxir.fluxir_core.data.shards import ShardWriter, read_index
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.image.files import png_bytes

from .harness import assert_sentence, cases, digest, repeatable

NAMES = ("a", "b", "dir/a", "../up", "/root", "c.d", "ü", " ", "x" * 120, "", "C:\\e", ".", "..")
EXTENSIONS = ("png", "hq.png", "lq.png", "json", "txt", "cls", "jpg", "PNG", "")


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def image(number, side=6):
    return torch.randint(256, (3, side, side + 1), generator=torch.Generator().manual_seed(number)) / 255


def ours(draw, path):
    """A shard by ShardWriter: {key: (image, metadata)}."""
    samples = {}
    with ShardWriter(path) as shard:
        for number in range(draw.randint(1, 4)):
            samples[f"{number:04d}"] = image(number), {"prompt": f"prompt {number}", "seed": number}
            shard.add(f"{number:04d}", {"hq.png": png_bytes(image(number))}, samples[f"{number:04d}"][1])
    return samples


def anybodys(draw, path):
    """A tar file of members of any name, kind and content."""
    with tarfile.open(path, "w", format=draw.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as tar:
        for number in range(draw.randint(0, 8)):
            name = f"{draw.choice(NAMES)}.{draw.choice(EXTENSIONS)}"
            data = draw.choice(
                (
                    png_bytes(image(number)),
                    json.dumps({"prompt": "text"}).encode(),
                    b"text",
                    b"",
                    b"[1]",
                    b"{",
                    draw.randbytes(700),
                    b'{"prompt": 1}',
                    b"[" * 5000,
                    b"\xff",
                )
            )
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.type = draw.choice((tarfile.REGTYPE,) * 6 + (tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE))
            member.linkname = "/etc/passwd"
            if member.type != tarfile.REGTYPE:
                member.size = 0
            try:
                tar.addfile(member, io.BytesIO(data) if member.isfile() else None)
            except ValueError:  # a name that this format does not hold
                continue


def read(folder):
    """[(key, what reading gives: a Record, or the sentence that refuses it)] of the source `folder`; what it skips."""
    source, found = ImageSource(folder), []
    for index, key in enumerate(source.keys):
        try:
            source.size_of(index)
            found.append((key, source[index]))
        except ValueError as error:
            found.append((key, str(error)))
    return found, source.skipped


def test_of_a_damaged_shard_nothing_else_is_read_than_was_written(tmp_path):
    for draw in cases("shards", 8):
        folder = tmp_path / str(draw.number)
        samples = ours(draw, folder / "a.tar")
        (folder / "a.tar").write_bytes(draw.mutated((folder / "a.tar").read_bytes(), 2))
        before = digest(folder)
        with repeatable(draw):
            try:
                found, skipped = read(folder)
            except ValueError as error:
                assert_sentence(error, str(folder))
                continue
            assert digest(folder) == before
            for key, record in found:
                if isinstance(record, str):
                    assert_sentence(record)
                elif key in samples:  # a name may have been damaged as well; the pixels have a checksum of their own
                    assert torch.equal(record.hq, samples[key][0]) or any(
                        torch.equal(record.hq, own) for own, _ in samples.values()
                    )
            assert all(reason for _, reason in skipped)


def test_anybodys_shard_is_read_or_refused(tmp_path):
    for draw in cases("others-shards", 6):
        folder = tmp_path / str(draw.number)
        folder.mkdir()
        anybodys(draw, folder / "a.tar")
        if draw.maybe(0.3):
            (folder / "a.tar").write_bytes(draw.mutated((folder / "a.tar").read_bytes(), 2))
        with repeatable(draw):
            try:
                found, _ = read(folder)
            except ValueError as error:
                assert_sentence(error, str(folder))
                continue
            for key, record in found:
                assert ".." not in key.split("/") and not key.startswith("/") and ":" not in key and "\\" not in key
                if isinstance(record, str):
                    assert_sentence(record)
                else:
                    assert record.hq.isfinite().all() and isinstance(record.metadata.get("prompt", ""), str)


def test_a_damaged_shard_that_was_not_finished_is_finished_whole(tmp_path):
    """What a killed run left behind, whatever became of it: the run that goes on ends with a shard that is read whole."""
    for draw in cases("partial-shards", 3):
        folder = tmp_path / str(draw.number)
        samples = ours(draw, folder / "a.tar")
        data = (folder / "a.tar").read_bytes()
        (folder / "a.tar").unlink()
        (folder / "a.tar.partial").write_bytes(data[: draw.randrange(len(data))] if draw.maybe() else draw.mutated(data, 1))
        with repeatable(draw):
            with ShardWriter(folder / "a.tar") as shard:
                for key, (own, metadata) in samples.items():
                    if key not in shard.keys:
                        shard.add(key, {"hq.png": png_bytes(own)}, metadata)
            index, complaint = read_index(folder / "a.tar")
            assert complaint is None and {sample.key for sample in index} >= samples.keys()
