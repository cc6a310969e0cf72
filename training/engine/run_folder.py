"""A run's checkpoints on disk: one file each, written whole or not at all."""

import logging
import os
import re
from pathlib import Path

import torch


def write_whole(path, state):
    """torch.save of `state` to `path`, so that a crash at any moment leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def check_identity(saved, own, place):
    """Raises ValueError unless the work found at `place` belongs to this run: its identity `saved`, a dict, is `own`."""
    changed = sorted(key for key in {*saved, *own} if saved.get(key) != own.get(key))
    if changed:
        raise ValueError(
            f"{place} holds another run's checkpoints (its {', '.join(changed)} differ); "
            "give another --work folder, or the configuration of that run."
        )


class RunFolder:
    """The checkpoints step-00001000.pt ... of a run in `folder`, of which the latest `keep` stay."""

    def __init__(self, folder, keep=2):
        self.folder, self.keep = Path(folder), keep

    def steps(self):
        """The steps after which a checkpoint was written, in order."""
        found = (re.fullmatch(r"step-(\d+)\.pt", path.name) for path in self.folder.glob("step-*.pt"))
        return sorted(int(match[1]) for match in found if match)

    def path(self, step):
        """The file of the checkpoint after `step` steps."""
        return self.folder / f"step-{step:08d}.pt"

    def save(self, step, state):
        """Writes `state` as the checkpoint after `step` steps, then drops the ones too many. Returns its path."""
        write_whole(self.path(step), state)
        for old in self.steps()[: -self.keep]:
            self.path(old).unlink()
        return self.path(step)

    def load(self, step=None):
        """The latest checkpoint, or that after `step` steps; None when the folder holds none at all.

        A latest file that cannot be read is passed over for the one before it, with a warning. Raises ValueError when `step`
        is asked for and missing, or when no file can be read.
        """
        steps = self.steps()
        if step is not None:
            if step not in steps:
                raise ValueError(f"{self.folder} holds no checkpoint after {step} steps; it has {steps or 'none'}.")
            steps = [step]
        for candidate in reversed(steps):
            try:
                return torch.load(self.path(candidate), map_location="cpu", weights_only=True)
            except (RuntimeError, OSError, EOFError, ValueError) as error:
                logging.warning("%s cannot be read (%s)", self.path(candidate), error)
        if steps:
            raise ValueError(f"{self.folder}: no checkpoint can be read; start again in another folder, or restore a copy.")
        return None
