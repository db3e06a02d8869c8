"""W&B, TensorBoard and MLflow: Lightning's loggers, and what each is told of a run as a whole."""

import os
import re
import secrets
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lpt.config.schema import Config
from lpt.data.batches import EncodedSplit
from lpt.errors import LptError
from lpt.training.module import Predictions
from lpt.training.result import CompletedRun
from lpt.training.summary import say

Table = tuple[list[Any], list[list[Any]]]  # columns, rows
SUMMARY = ("metrics", "intervals", "train", "trainable_parameters", "data", "lpt")  # of result.json


@dataclass(frozen=True)
class FinishedRun:
    """What there is to show of a run.

    Attributes:
        result: what `result.json` holds.
        tests: of each test set what was predicted, and its rows.
    """

    result: CompletedRun
    tests: dict[str, tuple[Predictions, EncodedSplit]]
    config: Config
    run_dir: Path

    @property
    def labels(self) -> list[str]:
        return self.config.task.labels

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder, where there is one and dashboards are to keep it."""
        folder = self.run_dir / "adapter"
        return folder if self.config.logger.adapter and folder.is_dir() else None

    @property
    def scores(self) -> dict[str, float]:
        """`result/<split>/<metric>`, of the step that was kept."""
        metrics = self.result.metrics
        return {f"result/{split}/{name}": value for split, found in metrics.items() for name, value in found.items()}

    def predictions(self, test: str) -> Table:
        """The most confident mistakes first, then what was right by the least.

        Of a regression: the largest errors first.
        """
        predictions, split = self.tests[test]
        sizes_N, order_N = predictions.probabilities.max(1), np.arange(len(predictions.gold))
        if predictions.value_range is None:
            right_N = predictions.predicted == predictions.gold
            order_N = np.lexsort((np.where(right_N, sizes_N, -sizes_N), right_N))
        else:
            order_N = np.argsort(-np.abs(predictions.predicted - predictions.gold), kind="stable")
        answers = list(predictions.rows(split, self.labels))
        rows = []
        for i in order_N[: self.config.logger.rows].tolist():
            text, answer = " / ".join(split.labeled.sentences[i]), answers[i]
            probabilities = answer["probabilities"].values()
            rows.append([answer["index"], text, answer["gold"], answer["predicted"], *probabilities])
        return ["index", "text", "gold", "predicted", *(f"p({label})" for label in self.labels)], rows

    def confusion(self, test: str) -> Table:
        """How many rows of a class were predicted as which."""
        predictions, _ = self.tests[test]
        counts_CC = np.zeros((len(self.labels), len(self.labels)), dtype=int)
        np.add.at(counts_CC, (predictions.gold, predictions.predicted), 1)
        rows = [[label, *counts] for label, counts in zip(self.labels, counts_CC.tolist(), strict=True)]
        return ["gold \\ predicted", *self.labels], rows

    def tables(self) -> dict[str, Table]:
        """All of them, `<test set>/<what>`; a regression has no confusion matrix."""
        tables = {}
        for test, (predictions, _) in self.tests.items():
            if predictions.value_range is None:
                tables[f"{test}/confusion_matrix"] = self.confusion(test)
            if self.config.logger.rows:
                tables[f"{test}/predictions"] = self.predictions(test)
        return tables


class Dashboard(Logger):
    """A logger that is also told how a run ended."""

    def show(self, run: FinishedRun) -> None:
        """What there is to show of a finished run."""

    def end(self, failed: bool) -> None:
        """Nothing more comes."""


class WandbDashboard(WandbLogger, Dashboard):
    """One run of Weights & Biases, offline where no key is set. The same run folder is the same run.

    Raises:
        LptError: W&B cannot be reached, or does not take the key.
    """

    def __init__(self, config: Config, run_dir: Path, sweep: str | None):
        import wandb

        settings = wandb.Settings(silent=True)
        wandb.setup(settings)
        try:
            self._mode = _wandb_mode(config.logger.offline)
            run = wandb.init(
                project=config.logger.project,
                name=_swept_values() or run_dir.name,
                group=config.logger.group or sweep,
                dir=run_dir,
                mode=self._mode,
                # Known before training starts, so that a run that is cut is continued.
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
        # Evaluations and training have their steps in common.
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        super().__init__(experiment=run)
        self._run, self._folder = run, run_dir / "wandb"
        if self._mode == "online":
            say(f"W&B: {run.url}")

    def show(self, run: FinishedRun) -> None:
        import wandb

        summary = asdict(run.result)
        for name in SUMMARY:
            self._run.summary[name] = summary[name]
        for test, (predictions, _) in run.tests.items():
            gold, predicted = predictions.gold.tolist(), predictions.predicted.tolist()
            if predictions.value_range is None:
                plot = wandb.plot.confusion_matrix(y_true=gold, preds=predicted, class_names=run.labels)
                self._run.log({f"{test}/confusion_matrix": plot})
            else:
                # A table of its own: one that is logged twice is kept under its first name alone.
                points = wandb.Table(columns=["gold", "predicted"], data=list(zip(gold, predicted, strict=True)))
                self._run.log({f"{test}/scatter": wandb.plot.scatter(points, "gold", "predicted")})
            if run.config.logger.rows:
                columns, rows = run.predictions(test)
                self._run.log({f"{test}/predictions": wandb.Table(columns=columns, data=rows)})
        if run.adapter is not None:
            identity = "-".join(str(getattr(run.result, name)) for name in ("task", "backbone", "method"))
            name = re.sub(r"[^\w.-]", "-", identity)
            artifact = wandb.Artifact(name, type="adapter", metadata=run.scores | {"lpt": asdict(run.result.lpt)})
            # Not copied: of an offline run the copy would lie outside the run folder.
            artifact.add_dir(str(run.adapter), policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact)

    def end(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
        if self._mode == "offline":
            say(f"W&B run kept offline; to send it: wandb sync {shlex.quote(str(self._folder))}/offline-run-*")


def _wandb_mode(offline: bool) -> Any:
    import wandb

    chosen = os.environ.get("WANDB_MODE")
    if offline or chosen in ("offline", "dryrun"):
        return "offline"
    if chosen == "disabled":
        return chosen
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


class TensorBoardDashboard(TensorBoardLogger, Dashboard):
    """Event files in the folder `tensorboard` of the run folder. A resumed run replaces what it repeats."""

    def __init__(self, config: Config, run_dir: Path, first_step: int):
        purge_step = first_step or None
        super().__init__(run_dir, name="", version="tensorboard", default_hp_metric=False, purge_step=purge_step)

    def show(self, run: FinishedRun) -> None:
        step = run.result.train.steps
        self.log_hyperparams(asdict(run.config), run.scores, step)
        for name, (columns, rows) in run.tables().items():
            self.experiment.add_text(name, _markdown(columns, rows), step)

    def end(self, failed: bool) -> None:
        self.experiment.close()


class MlflowDashboard(MLFlowLogger, Dashboard):
    """A run on MLFLOW_TRACKING_URI; without one, in `mlflow.db` and `mlruns/` where the command was typed."""

    def __init__(self, config: Config, run_dir: Path, sweep: str | None):
        here, server = Path.cwd(), os.environ.get("MLFLOW_TRACKING_URI")
        stored, group = run_dir / "mlflow-run", config.logger.group or sweep
        run_id = stored.read_text(encoding="utf-8") if stored.is_file() else None
        # The points of a sweep start at once, and only one may make the database, or the experiment.
        with FileLock(here / "mlflow.db.lock"):
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
        self.log_metrics(run.scores, run.result.train.steps)
        for name, (columns, rows) in run.tables().items():
            by_column = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            self.experiment.log_table(str(self.run_id), by_column, f"{name}.json")
        if run.adapter is not None:
            self.experiment.log_artifacts(str(self.run_id), str(run.adapter), "adapter")

    def end(self, failed: bool) -> None:
        self.experiment.set_terminated(str(self.run_id), "FAILED" if failed else "FINISHED")


def _markdown(columns: list[str], rows: list[list[Any]]) -> str:
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)
