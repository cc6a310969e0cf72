"""`fluxir fluxgen degrade`: pairs of good and degraded images, into shards (arXiv 2504.15159, section 3.1)."""

from pathlib import Path

from tqdm import tqdm

from ...fluxir_core.data.shards import ShardWriter
from ...fluxir_core.data.source import ImageSource
from ...fluxir_core.degrade.tasks import TASKS
from ...fluxir_core.flow.noise import keyed_generator
from ...fluxir_core.image.files import png_bytes
from ...fluxir_core.image.montage import contact_sheet
from ...fluxir_core.verify.selection import read_table
from ..arguments import seed, text_file
from .work import Rank, in_order, keep_settings, report_skipped, write_skipped

DEGRADATION, SHEET, SHOWN = "Real-ESRGAN", "pairs.png", 12
"""What happens to the images; the previews' file, and how many pairs it shows."""


def degradation_seed(seed, key):
    """The seed of the image `key` in a data set of `seed`, the same whatever else is in it."""
    return keyed_generator("fluxgen", seed, key).initial_seed()


def pair(source, index, seed, device, scores=None):
    """Makes the sample of an image and of what becomes of it, for ShardWriter.

    Args:
        source: ImageSource.
        index: of the image in it.
        seed: of the data set.
        device: where the image is degraded.
        scores: {metric: number} that go into the metadata; None for none.

    Returns:
        (files {name: PNG as bytes}, metadata).

    Raises:
        ValueError: the image cannot be read.
    """
    record = source[index]
    own = degradation_seed(seed, record.key)
    degraded = TASKS[DEGRADATION](record.hq[None].to(device), 1.0, [own])[0]
    height, width = record.hq.shape[1:]
    metadata = {**record.metadata, "degradation": DEGRADATION, "degradation_seed": own, "width": width, "height": height}
    if scores:
        metadata["scores"] = scores
    return {"hq.png": png_bytes(record.hq), "lq.png": png_bytes(degraded)}, metadata


def degrade(source, out, seed, rank, scores=None):
    """Degrades those parts of a source that belong to this process and are not there yet, into shards.

    Args:
        source: ImageSource.
        out: the folder of the shards.
        seed: of the data set.
        rank: Rank of this process.
        scores: {name: {metric: number}} that go into the metadata; None for none.
    """

    def made(index):
        try:
            return index, pair(source, index, seed, rank.device, scores and scores[source.names[index]]), None
        except ValueError as error:
            return index, None, str(error)

    parts = source.parts()
    work = {part: parts[part] for part in rank.own(parts) if not (Path(out) / f"{part}.tar").exists()}
    with tqdm(total=sum(map(len, work.values())), desc="degrading", disable=None) as bar:
        for part, indices in work.items():
            unread = []
            with ShardWriter(Path(out) / f"{part}.tar") as shard:
                for index, sample, reason in in_order(made, [i for i in indices if source.keys[i] not in shard.keys]):
                    if reason:
                        unread.append((source.names[index], reason))
                    else:
                        shard.add(source.keys[index], *sample)
                    bar.update()
                write_skipped(out, part, unread)


def preview(shard, path):
    """Writes a contact sheet of pairs in `shard`, spread evenly, good on the left."""
    source = ImageSource(shard)
    shown = min(SHOWN, len(source))
    records = [source[number * len(source) // shown] for number in range(shown)]
    labels = [f"{record.key}: good, degraded" for record in records]
    contact_sheet([(record.hq, record.lq) for record in records], labels).save(path)


def add_arguments(parser):
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder of shards, or of photos")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help=f"where pairs and {SHEET} are written; resumes")
    parser.add_argument(
        "--selection", type=text_file, metavar="CSV", help="the table of `fluxir fluxgen select`: only what it kept"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of the data set (default 0)")


def run(arguments):
    if arguments.out.resolve() == arguments.source.resolve():
        raise ValueError(f"OUT_DIR is SOURCE, {arguments.out}; give another folder for the pairs.")
    rank, scores = Rank.here(), arguments.selection and read_table(arguments.selection)
    source = ImageSource(arguments.source, keep=scores)
    with rank.holding(arguments.out):
        _degrade(arguments, source, scores, rank)


def _degrade(arguments, source, scores, rank):
    keep_settings(arguments.out, {"seed": arguments.seed, "source": source.fingerprint, "degradation": DEGRADATION})
    if rank.rank == 0:
        write_skipped(arguments.out, "source", source.skipped)
    degrade(source, arguments.out, arguments.seed, rank, scores)
    shards = sorted(arguments.out.glob("*.tar"))
    if rank.rank == 0 and shards:
        preview(shards[0], arguments.out / SHEET)
    report_skipped(arguments.out)
