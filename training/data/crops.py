"""Which part of which image a step sees: crops in buckets, and the order in which they come."""

import torch

from ...fluxir_core.degrade.presets import degrade_by_shares
from ...fluxir_core.flow.noise import keyed_generator


class Crops:
    """The images of `source` (a ImageSource), each cropped to one of `sizes` ((height, width) pixels).

    An image takes one of the sizes that fit inside it, chosen by its key. What has no degraded partner is degraded by `shares`, see
    `fluxir_core.degrade.presets.degrade_by_shares`. `skipped` lists (name, reason) of those that are
    too small or cannot be read. `indices` are the others'.
    """

    def __init__(self, source, sizes, crop="center", shares=None, seed=0):
        self.source, self.crop, self.shares, self.seed = source, crop, shares or {"mixture": 1.0}, seed
        self.size, self.skipped = {}, list(source.skipped)
        for index, key in enumerate(source.keys):
            try:
                height, width = source.size_of(index)
            except ValueError as error:
                self.skipped.append((source.names[index], str(error)))
                continue
            fitting = [size for size in sizes if size[0] <= height and size[1] <= width]
            if fitting:
                self.size[index] = fitting[torch.randint(len(fitting), (), generator=keyed_generator(seed, "bucket", key))]
            else:
                self.skipped.append((source.names[index], f"{width}x{height} is smaller than every bucket"))

    @property
    def indices(self):
        return list(self.size)

    def pair(self, index, version):
        """(clean, degraded), each (3, h, w) in [0, 1]: the crop of image `index` and its degraded partner, or else the
        `version`-th degradation of it. Raises ValueError when the image cannot be read."""
        record, (height, width) = self.source[index], self.size[index]
        own = keyed_generator(self.seed, "crop", record.key, version)
        rows, columns = record.hq.shape[1] - height, record.hq.shape[2] - width
        top, left = rows // 2, columns // 2
        if self.crop == "random":
            top, left = (torch.randint(extent + 1, (), generator=own).item() for extent in (rows, columns))
        window = (slice(None), slice(top, top + height), slice(left, left + width))
        clean = record.hq[window]
        return clean, degrade_by_shares(self.shares, clean, own) if record.lq is None else record.lq[window]


class Order:
    """Which of `size` {index: (height, width)} each step sees: `batch` of one size at a time, every image once an epoch.

    The last batch of a size is filled up with images of that size from the epoch's beginning.
    """

    def __init__(self, size, batch, seed=0):
        self.batch, self.seed, self._epoch, self._plan = batch, seed, None, []
        self._groups = {}
        for index, own in size.items():
            self._groups.setdefault(own, []).append(index)
        self.steps_per_epoch = sum(-(-len(group) // batch) for group in self._groups.values())

    def __call__(self, step):
        """(epoch, the `batch` indices of step `step`)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._shuffled(epoch)
        return epoch, self._plan[place]

    def others(self, index):
        """The indices with the size of `index`, those behind it first."""
        group = next((group for group in self._groups.values() if index in group), [])
        place = group.index(index) if group else 0
        return [*group[place + 1 :], *group[:place]]

    def _shuffled(self, epoch):
        own, batches = keyed_generator(self.seed, "order", epoch), []
        for group in self._groups.values():
            drawn = [group[i] for i in torch.randperm(len(group), generator=own).tolist()]
            whole = -(-len(drawn) // self.batch) * self.batch
            drawn = (drawn * -(-whole // len(drawn)))[:whole]
            batches += [drawn[i : i + self.batch] for i in range(0, whole, self.batch)]
        return [batches[i] for i in torch.randperm(len(batches), generator=own).tolist()]
