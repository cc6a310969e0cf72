"""A folder of images and the folder of their results: which there are, and what is left to do."""

from pathlib import Path

from .files import SUFFIXES, WRITTEN


def images_under(folder, out=None):
    """The image files in `folder` and below, in order, without what is in the folder `out`."""
    folder, apart = Path(folder), out and Path(out).resolve()
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file() and apart not in path.resolve().parents
    ]


def result_name(name):
    """Where the result of the image `name`, a relative Path, goes: a format that is not written becomes PNG."""
    return name if name.suffix.lower() in WRITTEN else name.with_name(f"{name.name}.png")


def images_left(folder, out):
    """[(path, name of its result)] of the images in `folder` and below whose results `out` lacks, and how many there are in all."""
    everything = [(path, result_name(path.relative_to(folder))) for path in images_under(folder, out)]
    return [(path, name) for path, name in everything if not (Path(out) / name).exists()], len(everything)
