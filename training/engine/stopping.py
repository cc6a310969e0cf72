"""Ending a run that is asked to stop: at once, or between two steps, with its checkpoint written."""

import signal
import threading
from contextlib import contextmanager


class Stopped(Exception):
    """The run was asked to stop (SIGTERM, Ctrl-C); its checkpoint is written."""

    def __init__(self, done, steps):
        super().__init__(f"stopped after {done} of {steps} steps; run the same command to go on")


class StopSignal:
    """`asked` becomes true at SIGTERM or SIGINT; the handlers of before come back at the end. Acts in the main thread only.

    Who asks a second time does not want to wait: KeyboardInterrupt is raised.
    """

    def __enter__(self):
        self.asked, self._before = False, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, _number, _frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def terminated():
    """SIGTERM and Ctrl-C raise KeyboardInterrupt inside this block: what is open is closed. In the main thread only.

    A library in C may make an exception of its own out of it: whatever is raised behind a signal is KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []

    def interrupt(_number, _frame):
        asked.append(True)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Exception:
        if asked:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
