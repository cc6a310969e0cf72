"""Ending a run that is asked to stop between two steps, with its checkpoint written."""

import signal
import threading


class Stopped(Exception):
    """The run was asked to stop (SIGTERM, Ctrl-C); its checkpoint is written."""

    def __init__(self, done, steps):
        super().__init__(f"stopped after {done} of {steps} steps; run the same command to go on")


class StopSignal:
    """`asked` becomes true at SIGTERM or SIGINT; the handlers of before come back at the end. Acts in the main thread only."""

    def __enter__(self):
        self.asked, self._before = False, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, _number, _frame):
        self.asked = True

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
