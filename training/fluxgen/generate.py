"""`fluxir fluxgen generate`: images of a bare FLUX, into shards (arXiv 2504.15159, sections 3.1 and 4.1)."""

import hashlib
import re
from pathlib import Path

import torch
from tqdm import tqdm

from ...fluxir_core.data.shards import ShardWriter, read_index
from ...fluxir_core.image.files import png_bytes
from ..arguments import LARGEST_SEED, number, seed, steps, text_file, whole
from .base import PATCH, Base, flux_shift, load_embedder
from .work import Rank, keep_settings


def read_prompts(path):
    """The prompts in a text file, one a line; [""] without a file. Raises ValueError when none is there."""
    if path is None:
        return [""]
    try:
        prompts = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ValueError(f"--prompts: {path} cannot be read ({reason}); give a text file with a prompt a line.") from None
    if not prompts:
        raise ValueError(f"--prompts: {path} holds no prompt; give a text file with one a line.")
    return prompts


def missing(out, count, per_shard, parts):
    """Finds the shards that lack images.

    Args:
        out: the folder of the shards.
        count: of the images in all shards.
        per_shard: images a shard.
        parts: numbers of the shards that are looked at.

    Returns:
        {path of a shard: range of its images}.
    """
    found = {}
    for part in parts:
        images = range(part * per_shard, min((part + 1) * per_shard, count))
        path = Path(out) / f"fluxgen-{part:06d}.tar"
        if not (path.exists() and len(read_index(path)[0]) >= len(images)):
            found[path] = images
    return found


def generate(base, embed, out, count, prompts, size, steps, guidance, seed, per_shard, batch, rank):
    """Draws images into shards, those of this process that are not there yet.

    Args:
        base: Base.
        embed: as `load_embedder` gives it.
        out: the folder of the shards.
        count: of the images in all shards.
        prompts: image i has prompt i, from the first again behind the last.
        size: (width, height) in pixels, multiples of 16.
        steps: of the sampler.
        guidance: FLUX's, a number.
        seed: of image 0; image i has `seed` + i.
        per_shard: images a shard.
        batch: images that are drawn together, the same ones in every run.
        rank: Rank of this process.
    """
    width, height = size
    shards = missing(out, count, per_shard, rank.own(range(-(-count // per_shard))))
    described = {
        "model": base.folder.name,
        "steps": steps,
        "guidance": guidance,
        "width": width,
        "height": height,
        "shift": round(flux_shift(height, width), 6),
    }
    with tqdm(total=sum(map(len, shards.values())), desc="generating", disable=None) as bar:
        for path, images in shards.items():
            with ShardWriter(path) as shard:
                for first in images[::batch]:
                    group = range(first, min(first + batch, images.stop))
                    keys = [f"{number:08d}" for number in group]
                    if not all(key in shard.keys for key in keys):
                        texts, seeds = zip(*((prompts[n % len(prompts)], (seed + n) % (LARGEST_SEED + 1)) for n in group))
                        drawn = base.draw(*embed(texts), seeds, height, width, steps, guidance)
                        for key, text, own, image in zip(keys, texts, seeds, drawn):
                            if key not in shard.keys:
                                shard.add(key, {"hq.png": png_bytes(image)}, {"prompt": text, "seed": own, **described})
                    bar.update(len(group))


def _size(text):
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    sides = [int(side) for side in found.groups()] if found else [0]
    if min(sides) < PATCH or any(side % PATCH for side in sides):
        raise ValueError(f"--size is {text}; use WIDTHxHEIGHT in multiples of {PATCH}, such as 1024x768.")
    return tuple(sides)


def add_arguments(parser):
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="where the shards are written; a run there is resumed")
    parser.add_argument("--count", type=whole(1, 100_000_000), required=True, help="how many images, by all processes together")
    parser.add_argument("--model", default="miniature", help="'miniature' or a model folder (see docs/command-line.md)")
    parser.add_argument("--prompts", type=text_file, metavar="FILE", help="a prompt a line, taken in turn (default: no prompt)")
    parser.add_argument("--size", default="1024x768", help="width and height in pixels (default 1024x768)")
    parser.add_argument("--steps", type=steps, default=20, help="sampling steps (default 20)")
    parser.add_argument("--guidance", type=number(0, 100), default=4.0, help="FLUX's guidance (default 4)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the first image (default 0)")
    parser.add_argument("--batch", type=whole(), default=4, help="images drawn together (default 4)")
    parser.add_argument("--per-shard", type=whole(), default=256, help="images a shard (default 256)")


def run(arguments):
    size, prompts, rank = _size(arguments.size), read_prompts(arguments.prompts), Rank.here()
    dtype = torch.float32 if rank.device == "cpu" else torch.bfloat16
    embed = load_embedder(arguments.model, prompts, rank.device, dtype)  # before the base: both may not fit
    base = Base(arguments.model, rank.device, dtype)
    with rank.holding(arguments.out):
        _generate(arguments, base, embed, prompts, size, rank)


def _generate(arguments, base, embed, prompts, size, rank):
    keep_settings(
        arguments.out,
        {
            "model": base.folder.name,
            "size": arguments.size,
            "steps": arguments.steps,
            "guidance": arguments.guidance,
            "seed": arguments.seed,
            "images a shard": arguments.per_shard,
            "prompts": hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16],
        },
    )
    generate(
        base,
        embed,
        arguments.out,
        arguments.count,
        prompts,
        size,
        arguments.steps,
        arguments.guidance,
        arguments.seed,
        arguments.per_shard,
        arguments.batch,
        rank,
    )
