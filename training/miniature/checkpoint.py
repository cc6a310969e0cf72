"""Atomic checkpoints of a training stage, and the loop that resumes from them."""

import logging
import time
from pathlib import Path

import torch

from ..engine.checked_files import BrokenFile, misfit, read_checked, write_checked
from ..engine.progress import Progress
from ..engine.run_folder import check_identity
from ..engine.stopping import Stopped, StopSignal


class Checkpoint:
    """The state of one stage (modules, optimizers, random generator, step) in one file, saved every `every` seconds.

    The file before it stays beside it, for when it is broken. `identity`, a dict of plain values, says what the stage depends
    on: a file of another is refused.
    """

    def __init__(self, path, every=120, identity=None):
        self.path, self.every, self.identity = Path(path), every, identity or {}
        self.before = self.path.with_suffix(".before.pt")

    def steps(self, total, *stateful):
        """Yields the steps still to be done, from 0 or from the saved one, to `total`; saves on the way and at the end.

        `stateful` are the objects with `state_dict` and `load_state_dict` that a step changes. A finished stage yields nothing.
        Raises Stopped after SIGTERM or Ctrl-C, with the step that was under way done and saved, and ValueError where the file
        belongs to another run.
        """
        start, saved = 0, self._load(stateful)
        if saved:
            for part, state in zip(stateful, saved["state"]):
                part.load_state_dict(state)
            torch.set_rng_state(saved["rng"])
            if saved.get("cuda_rng") and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(saved["cuda_rng"])
            start = saved["step"]
        last_save = time.monotonic()
        with StopSignal() as stop, Progress(total, start) as progress:
            for step in range(start, total):
                yield step
                progress.step()
                done = step + 1
                if stop.asked or done == total or time.monotonic() - last_save > self.every:
                    self._save(done, stateful)
                    progress.checkpoint(done)
                    last_save = time.monotonic()
                if stop.asked and done < total:
                    raise Stopped(done, total)

    def _load(self, stateful):
        """The latest file that can be used, None without one; broken ones are passed over with a warning."""
        own = {"state": [part.state_dict() for part in stateful], "rng": torch.get_rng_state()}
        for path in (self.path, self.before):
            try:
                saved = read_checked(path)
            except FileNotFoundError:
                continue
            except BrokenFile as error:
                logging.warning("%s; it is passed over", error)
                continue
            check_identity(saved.get("identity", {}), self.identity, path)
            reason = "it lacks step" if "step" not in saved else misfit(saved, own)
            if not reason:
                return saved
            logging.warning("%s does not fit: %s; it is passed over", path, reason)
        return None

    def _save(self, step, stateful):
        write_checked(
            self.path,
            {
                "step": step,
                "identity": self.identity,
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all(),
                "state": [part.state_dict() for part in stateful],
            },
            self.before,
        )
