"""A dashboard that cannot hold up or undo a run: it is left at its first failure, with one warning."""

from collections.abc import Callable
from typing import Any

from lpt.training.first_process import say
from lpt.training.loggers.dashboard import Dashboard
from lpt.training.loggers.finished_run import FinishedRun


class Guarded(Dashboard):
    """Passes everything on to a dashboard until that fails; from then on nothing.

    Args:
        dashboard: one that was started without an error.
        option: what chooses it, for the warning.
    """

    def __init__(self, dashboard: Dashboard, option: str):
        super().__init__()
        self.dashboard, self._option, self._failed = dashboard, option, False

    @property
    def name(self) -> str | None:
        """That of the dashboard."""
        return self.dashboard.name

    @property
    def version(self) -> int | str | None:
        """That of the dashboard."""
        return self.dashboard.version

    @property
    def save_dir(self) -> str | None:
        """That of the dashboard."""
        return self.dashboard.save_dir

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Pass numbers on."""
        self._pass_on(self.dashboard.log_metrics, metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: a dashboard takes the configuration from the run."""

    def save(self) -> None:
        """Have it write what it holds."""
        self._pass_on(self.dashboard.save)

    def finalize(self, status: str) -> None:
        """Pass on how training ended."""
        self._pass_on(self.dashboard.finalize, status)

    def show(self, run: FinishedRun) -> None:
        """Have it show a finished run."""
        self._pass_on(self.dashboard.show, run)

    def end(self, failed: bool) -> None:
        """Close it."""
        self._pass_on(self.dashboard.end, failed)

    def _pass_on(self, call: Callable[..., Any], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever a service or its library comes up with
            self._failed = True
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            say(
                f"warning: {self._option} has failed and hears no more of this run ({reason}); the run is not "
                "affected, and its folder has everything"
            )
