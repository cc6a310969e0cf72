"""A run's checkpoints on disk: one file each, written whole or not at all."""

import logging
import re
from pathlib import Path

from .checked_files import BrokenFile, read_checked, write_checked


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
        """Writes `state` as the checkpoint after `step` steps, then drops the ones too many. Returns its path.

        Those after more steps go as well: a run that comes past here has found that they cannot be used.
        """
        write_checked(self.path(step), state)
        steps = self.steps()
        for other in {*steps} - {*[each for each in steps if each <= step][-self.keep :]}:
            self.path(other).unlink()
        return self.path(step)

    def load(self, step=None, misfit=None):
        """The latest checkpoint, or that after `step` steps; None when the folder holds none at all.

        A latest file that is broken is passed over for the one before it, with a warning; so is one of which `misfit(state)`
        says why it cannot be used. Raises ValueError when `step` is asked for and missing, or when no file can be used.
        """
        steps = self.steps()
        if step is not None:
            if step not in steps:
                raise ValueError(f"{self.folder} holds no checkpoint after {step} steps; it has {steps or 'none'}.")
            steps = [step]
        for candidate in reversed(steps):
            try:
                state = read_checked(self.path(candidate))
            except (BrokenFile, FileNotFoundError) as error:
                reason = str(error)
            else:
                reason = misfit and misfit(state)
                if not reason:
                    return state
                reason = f"{self.path(candidate)} does not fit: {reason}"
            logging.warning("%s; it is passed over", reason)
        if steps:
            raise ValueError(f"{self.folder}: no checkpoint can be read; start again in another folder, or restore a copy.")
        return None
