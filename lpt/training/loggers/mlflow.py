"""MLflow (`logger=mlflow`)."""

import os
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock
from pytorch_lightning.loggers import MLFlowLogger

from lpt.config.schema import Config
from lpt.errors import LptError
from lpt.training.loggers.dashboard import Dashboard
from lpt.training.loggers.finished_run import FinishedRun

# A server that does not answer is given up after seconds: the run does not wait for it.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowDashboard(MLFlowLogger, Dashboard):
    """A run on MLFLOW_TRACKING_URI; without one, in `mlflow.db` and `mlruns/` where the command was typed.

    Args:
        config: the run's; MLflow shows all of it.
        run_dir: the run folder; its name is the run's. The same run folder is the same run.
        sweep: name of the sweep that the run is part of; it groups runs unless `logger.group` does.

    Raises:
        LptError: the server does not answer, or does not take the run.
    """

    def __init__(self, config: Config, run_dir: Path, sweep: str | None):
        here, server = Path.cwd(), os.environ.get("MLFLOW_TRACKING_URI")
        for variable, value in PATIENCE.items():
            os.environ.setdefault(variable, value)
        try:
            # The points of a sweep start at once, and only one may make the database, or the experiment.
            with FileLock(here / "mlflow.db.lock"):
                self._begin(config, run_dir, sweep, here, server)
        except Exception as error:  # of MLflow, its database or its network
            reason = str(error).strip().partition("\n")[0][:200]
            raise LptError(
                f"logger=mlflow: {server or here / 'mlflow.db'} cannot be used ({reason}); if it is a server, see that "
                "it runs and that MLFLOW_TRACKING_URI is right; if the experiment was deleted, choose another "
                "logger.project"
            ) from None

    def _begin(self, config: Config, run_dir: Path, sweep: str | None, here: Path, server: str | None) -> None:
        stored, group = run_dir / "mlflow-run", config.logger.group or sweep
        run_id = stored.read_text(encoding="utf-8") if stored.is_file() else None
        super().__init__(
            experiment_name=config.logger.project,
            run_name=run_dir.name,
            tracking_uri=server or f"sqlite:///{here / 'mlflow.db'}",
            artifact_location=None if server else (here / "mlruns").as_uri(),
            tags={"group": group} if group else None,
            run_id=run_id,
        )
        stored.write_text(str(self.run_id), encoding="utf-8")
        if run_id is None:  # what was once given cannot change
            self.log_hyperparams(asdict(config))

    def show(self, run: FinishedRun) -> None:
        """Scores, tables, and the adapter as an artifact."""
        self.log_metrics(run.scores, run.result.train.steps)
        for name, (columns, rows) in run.tables().items():
            by_column = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            self.experiment.log_table(str(self.run_id), by_column, f"{name}.json")
        if run.adapter is not None:
            self.experiment.log_artifacts(str(self.run_id), str(run.adapter), "adapter")

    def end(self, failed: bool) -> None:
        """Mark the run as failed or finished."""
        self.experiment.set_terminated(str(self.run_id), "FAILED" if failed else "FINISHED")
