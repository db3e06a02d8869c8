"""Weights & Biases (`logger=wandb`)."""

import os
import re
import secrets
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import yaml
from pytorch_lightning.loggers import WandbLogger

from lpt.config.schema import Config
from lpt.errors import LptError
from lpt.training.first_process import say
from lpt.training.loggers.dashboard import Dashboard
from lpt.training.loggers.finished_run import FinishedRun

LONGEST_NAME = 128  # characters that W&B takes
INIT_TIMEOUT = 30.0  # seconds
SUMMARY = ("metrics", "intervals", "train", "trainable_parameters", "data", "lpt")  # of result.json

Mode = Literal["online", "offline", "disabled"]


class WandbDashboard(WandbLogger, Dashboard):
    """One run of Weights & Biases, offline where no key is set. The same run folder is the same run.

    Args:
        config: the run's; W&B shows all of it.
        run_dir: the run folder; its name is the run's.
        sweep: name of the sweep that the run is part of; it groups runs unless `logger.group` does.

    Raises:
        LptError: W&B cannot be reached, or does not take the key.
    """

    def __init__(self, config: Config, run_dir: Path, sweep: str | None):
        self._folder = run_dir / "wandb"
        self._run, self._mode = _start(config, run_dir, sweep)
        # Evaluations and training have their steps in common.
        self._run.define_metric("trainer/global_step")
        self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        super().__init__(experiment=self._run)
        if self._mode == "online":
            say(f"W&B: {self._run.url}")

    def show(self, run: FinishedRun) -> None:
        """Result, plots and tables of each test set, and the adapter as an artifact."""
        summary = asdict(run.result)
        for name in SUMMARY:
            self._run.summary[name] = summary[name]
        for test in run.tests:
            self._show_test(run, test)
        if run.adapter is not None:
            self._keep_adapter(run, run.adapter)

    def _show_test(self, run: FinishedRun, test: str) -> None:
        import wandb

        predictions, _ = run.tests[test]
        gold, predicted = predictions.gold.tolist(), predictions.predicted.tolist()
        if predictions.value_range is None:
            plot = wandb.plot.confusion_matrix(y_true=gold, preds=predicted, class_names=run.labels)
            self._run.log({f"{test}/confusion_matrix": plot})
        else:
            # A table of its own: one that is logged twice is kept under its first name alone.
            points = wandb.Table(columns=["gold", "predicted"], data=list(zip(gold, predicted, strict=True)))
            self._run.log({f"{test}/scatter": wandb.plot.scatter(points, "gold", "predicted")})
        if run.config.logger.rows:
            columns, rows = run.prediction_table(test)
            self._run.log({f"{test}/predictions": wandb.Table(columns=[*columns], data=rows)})

    def _keep_adapter(self, run: FinishedRun, adapter: Path) -> None:
        import wandb

        result = run.result
        name = re.sub(r"[^\w.-]", "-", f"{result.task}-{result.backbone}-{result.method}")[:LONGEST_NAME]
        artifact = wandb.Artifact(name, type="adapter", metadata=run.scores | {"lpt": asdict(result.lpt)})
        # Not copied: of an offline run the copy would lie outside the run folder.
        artifact.add_dir(str(adapter), policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)

    def end(self, failed: bool) -> None:
        """Finish the run, and say how to send one that was kept offline."""
        self._run.finish(exit_code=int(failed))
        if self._mode == "offline":
            say(f"W&B run kept offline; to send it: wandb sync {shlex.quote(str(self._folder))}/offline-run-*")


def _start(config: Config, run_dir: Path, sweep: str | None) -> tuple[Any, Mode]:
    """A W&B run, and whether it is online."""
    import wandb

    settings = wandb.Settings(silent=True, init_timeout=INIT_TIMEOUT)
    wandb.setup(settings)
    try:
        mode = _mode(config.logger.offline)
        run = wandb.init(
            project=config.logger.project,
            name=(_swept_values() or run_dir.name)[:LONGEST_NAME],
            group=config.logger.group or sweep,
            dir=run_dir,
            mode=mode,
            # Known before training starts, so that a run that is interrupted is continued.
            id=_stored_id(run_dir / "wandb" / "id", None if sweep else os.environ.get("WANDB_RUN_ID")),
            resume="allow",
            config=asdict(config),
            settings=settings,
        )
    except wandb.errors.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise LptError(
            f"logger=wandb: W&B cannot be used ({reason}); with logger.offline=true the run is kept in its folder, "
            "to be synced later"
        ) from error
    return run, mode


def _mode(offline: bool) -> Mode:
    import wandb

    asked = os.environ.get("WANDB_MODE")
    if offline or asked in ("offline", "dryrun"):
        return "offline"
    if asked == "disabled":
        return "disabled"
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _swept_values() -> str | None:
    """What varies in a sweep that W&B runs, as in `layer-8_seed-13`; its agents leave the values of a run in a file."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if path is None:
        return None
    parameters = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    values = {name: entry["value"] for name, entry in parameters.items() if name != "wandb_version"}
    return "_".join(f"{name.rpartition('.')[2]}-{value}" for name, value in values.items())


def _stored_id(path: Path, given: str | None) -> str:
    """The id of the run in this folder; a first one is `given` (by W&B's own sweeps) or made up."""
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        path.write_text(given or secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")
