"""How a long job is shared and resumed: ranks, settings that must not change, work in order by threads, what was skipped."""

import csv
import io
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from ...fluxir_core.data.lock import locked
from ...fluxir_core.data.shards import write_whole

SETTINGS, SKIPPED = "fluxgen.json", "skipped"


class Rank(NamedTuple):
    """This process among `world`, as torchrun and `accelerate launch` say: it does every world-th part."""

    rank: int
    world: int
    device: str

    @classmethod
    def here(cls):
        """Raises ValueError when RANK and WORLD_SIZE are no such numbers."""
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        given = {name: os.environ.get(name, usual) for name, usual in alone.items()}
        try:
            rank, world, local = map(int, given.values())
        except ValueError:
            rank, world, local = -1, 0, 0
        if not 0 <= rank < world:
            raise ValueError(f"RANK {given['RANK']} of WORLD_SIZE {given['WORLD_SIZE']}; let torchrun set them.")
        gpus = torch.cuda.device_count()
        return cls(rank, world, f"cuda:{local % gpus}" if gpus else "cpu")

    def holding(self, folder, option="OUT_DIR"):
        """A context in which no other process of this rank works in the output folder `folder`. Raises ValueError while one does."""
        return locked(folder, option, f"-{self.rank}")

    def own(self, parts):
        """Those of `parts`, in order, that belong to this process."""
        return list(parts)[self.rank :: self.world]


def keep_settings(folder, settings, name=SETTINGS):
    """Notes `settings` in `folder`. Raises ValueError when an earlier run noted others: that would mix two data sets."""
    path = Path(folder) / name
    if not path.exists():
        write_whole(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")
        return
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(each for each in settings | noted if settings.get(each) != noted.get(each))
    except (ValueError, TypeError):
        raise ValueError(f"{path} cannot be read; give another output folder.") from None
    if changed:
        listed = ", ".join(f"{each} {noted.get(each)}, not {settings.get(each)}" for each in changed)
        raise ValueError(f"{folder} was begun with {listed}; give another output folder, or the same settings.")


def in_order(function, items, workers=None):
    """`function(item)` of each of `items`, in their order, computed by threads a few items ahead."""
    workers = workers or min(8, os.cpu_count() or 1)
    pool, waiting = ThreadPoolExecutor(workers), deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # who is interrupted waits for the items at hand alone


def write_skipped(folder, part, skipped):
    """Notes [(name, reason)] of what a part of the work left out, or that there is no such thing any more."""
    path = Path(folder) / SKIPPED / f"{part}.csv"
    if skipped:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(skipped)
        write_whole(path, text.getvalue())
    else:
        path.unlink(missing_ok=True)


def report_skipped(folder):
    """Prints everything that `write_skipped` noted in `folder`, by any process."""
    rows = []
    for path in sorted((Path(folder) / SKIPPED).glob("*.csv")):
        with path.open(newline="", encoding="utf-8", errors="replace") as file, suppress(csv.Error):
            rows += (row for row in csv.reader(file) if len(row) == 2)
    if rows:
        listed = (f"- {name}: {reason}" for name, reason in rows)
        print(f"skipped {len(rows)}, see {Path(folder) / SKIPPED}:", *listed, sep="\n")
