"""Loggers: metrics.csv in the run folder, and W&B or TensorBoard besides."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lpt.batches import EncodedSplit
from lpt.config import Config
from lpt.errors import LptError
from lpt.fewshot import fingerprint
from lpt.module import Predictions
from lpt.summary import say


class MetricsFile(CSVLogger):
    """`metrics.csv` in the run folder itself. A resumed run keeps the rows up to the step it goes on from."""

    def __init__(self, run_dir: Path, first_step: int):
        path, earlier = run_dir / "metrics.csv", []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                earlier = [row for row in csv.DictReader(file) if int(row["step"]) < first_step]
        # Every line at once: a run that is killed leaves what it had.
        super().__init__(save_dir=run_dir, name="", version="", flush_logs_every_n_steps=1)
        if earlier:
            self.experiment.metrics = earlier
            self.experiment.save()

    @property
    def log_dir(self) -> str:
        return str(self.root_dir)

    def save(self) -> None:
        self.experiment.save()  # without hparams.yaml: .hydra/ has the configuration


def build_loggers(config: Config, run_dir: Path, group: str | None, first_step: int = 0) -> list[Logger]:
    """The loggers that `logger=` names.

    Args:
        group: of the sweep that this run belongs to, for W&B.
        first_step: optimizer steps already taken, where a run is resumed.

    Raises:
        LptError: TensorBoard is asked for and not installed.
    """
    name = config.logger.name
    if name == "none":
        return []
    loggers: list[Logger] = [MetricsFile(run_dir, first_step)]
    if name == "tensorboard":
        try:
            loggers.append(TensorBoardLogger(save_dir=run_dir, name="", version="tensorboard"))
        except ModuleNotFoundError as error:
            raise LptError(
                "logger=tensorboard needs the package tensorboard: pip install 'lpt[tensorboard]'"
            ) from error
    if name == "wandb":
        loggers.append(_wandb_logger(config, run_dir, group))
    return loggers


def _wandb_logger(config: Config, run_dir: Path, group: str | None) -> WandbLogger:
    import wandb

    if getattr(rank_zero_only, "rank", 0) != 0:
        return WandbLogger(offline=True)  # never started: the first process logs for all
    settings = wandb.Settings(silent=True)
    offline = config.logger.offline or os.environ.get("WANDB_MODE") == "offline"
    if not offline and not wandb.login(prompt=False):
        sync = f"wandb sync {run_dir}/wandb/offline-run-*"
        say(f"logger=wandb: no API key, so the run is kept offline; to send it: {sync}")
        offline = True
    run = wandb.init(
        project=config.logger.project,
        name=run_dir.name,
        group=config.logger.group or group,
        dir=run_dir,
        mode="offline" if offline else "online",
        # The same folder is the same run, so that a resumed one continues its curves.
        id=fingerprint([str(run_dir.absolute()), str(run_dir.stat().st_ino)]),
        resume="allow",
        config=asdict(config),
        settings=settings,
    )
    return WandbLogger(experiment=run)


@contextmanager
def finished(loggers: list[Logger]) -> Iterator[None]:
    """Close W&B runs whatever happens, marked as failed where it was a failure."""
    runs = [logger for logger in loggers if isinstance(logger, WandbLogger)]
    try:
        yield
    except BaseException:
        for logger in runs:
            logger.experiment.finish(exit_code=1)
        raise
    for logger in runs:
        logger.experiment.finish()


def log_tests(
    loggers: list[Logger],
    result: dict[str, Any],
    tests: dict[str, tuple[Predictions, EncodedSplit]],
    config: Config,
) -> None:
    """What a dashboard shows of a finished run: summary, and of each test set a table of predictions and a plot.

    The plot is a confusion matrix; of a regression, predicted against gold values.
    """
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        labels = config.task.labels
        run = logger.experiment
        for name in ("metrics", "intervals", "train", "trainable_parameters", "data", "lpt"):
            run.summary[name] = result[name]
        for name, (predictions, split) in tests.items():
            table = wandb.Table(columns=["index", "text", "gold", "predicted", *(f"p({label})" for label in labels)])
            for sentences, row in zip(split.table.sentences, predictions.rows(split, labels), strict=True):
                text, probabilities = " / ".join(sentences), row["probabilities"].values()
                table.add_data(row["index"], text, row["gold"], row["predicted"], *probabilities)
            gold, predicted = predictions.gold.tolist(), predictions.predicted.tolist()
            if predictions.ends is None:
                plot = wandb.plot.confusion_matrix(y_true=gold, preds=predicted, class_names=labels)
                run.log({f"{name}/confusion_matrix": plot})
            else:
                # A table of its own: one that is logged twice is kept under its first name alone.
                points = wandb.Table(columns=["gold", "predicted"], data=list(zip(gold, predicted, strict=True)))
                run.log({f"{name}/scatter": wandb.plot.scatter(points, "gold", "predicted")})
            run.log({f"{name}/predictions": table})
