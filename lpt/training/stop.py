"""Requests to end a run: Ctrl-C, SIGTERM, and SIGUSR1, with which clusters announce that they will."""

import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(BaseException):
    """A run has ended because it was asked to, with its progress saved.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"interrupted by {signal.Signals(number).name}")

    @property
    def exit_status(self) -> int:
        """As shells have it: 128 + the signal's number."""
        return 128 + self.number


class StopRequests:
    """Notes a request to end instead of ending at once, so that a step can be finished and saved.

    Attributes:
        number: the signal that has asked; None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Note requests from now on; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)

    def forget(self) -> None:
        """Have signals do again what they did before; those that someone else has reset in the meantime stay so."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        self._before.clear()

    def waited(self) -> float:
        """Seconds since the request; 0 without one."""
        return 0.0 if self.number is None else time.monotonic() - self._since

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT == number:  # a second Ctrl-C means now
            raise KeyboardInterrupt
        self.number, self._since = number, time.monotonic()
