"""A progress bar on a terminal; in a file, a pipe or a notebook nothing is drawn."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lpt.console import console, part_name

MOMENT = 2.0  # seconds; what takes no longer needs no bar, and no word about how long it took
REFRESH = 4  # times a second


class Bar:
    """Counts up on the last line of the screen, and leaves nothing there; a context manager, which removes it.

    Args:
        description: what is being done.
        total: when it is done.
        completed: where it begins.
        delay: seconds before anything is drawn.
        visible: whether it is wanted.
        on: the console to draw it on; None: the one of messages.

    Attributes:
        visible: whether it is wanted, and there is a terminal to draw it on.
    """

    def __init__(
        self,
        description: str,
        total: int,
        completed: int = 0,
        *,
        delay: float = MOMENT,
        visible: bool = True,
        on: Console | None = None,
    ):
        on = on or console
        # Not by `is_terminal` alone, which FORCE_COLOR makes of a file.
        self.visible = visible and on.is_terminal and on.file.isatty()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[details]}", markup=False),
            console=on,
            transient=True,
            expand=True,
            refresh_per_second=REFRESH,
            disable=not self.visible,
        )
        self._part = part_name()
        self._task = self._progress.add_task(self._named(description), total=total, completed=completed, details="")
        self._due = time.monotonic() + delay
        if not delay:
            self._progress.start()

    def update(self, completed: int, details: str = "", description: str | None = None) -> None:
        """Move to `completed`, with `details` beside the bar."""
        named = None if description is None else self._named(description)
        self._progress.update(self._task, completed=completed, details=details, description=named)
        if not self._progress.live.is_started and time.monotonic() >= self._due:
            self._progress.start()

    def _named(self, description: str) -> str:
        return f"{self._part}, {description}" if self._part else description

    def close(self) -> None:
        """Remove the bar from the screen."""
        self._progress.stop()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
