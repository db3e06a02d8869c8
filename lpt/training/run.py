"""One experiment from configuration to result: prepare, train, restore the best step, evaluate, write."""

import shlex
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytorch_lightning as pl

from lpt.adapter import IN_RUN
from lpt.cache.trunk import TrunkCache
from lpt.config.schema import Config
from lpt.console import part_name
from lpt.data.batches import EncodedSplit
from lpt.data.splits import Splits, read_rows
from lpt.errors import LptError
from lpt.ranks import global_rank
from lpt.training.calibrate import calibrate
from lpt.training.checkpoints import Checkpoints, checkpoint_to_resume
from lpt.training.cross_validation import cross_validate
from lpt.training.datamodule import PromptData
from lpt.training.experiment import Experiment, prepare
from lpt.training.first_process import announce_rank, say
from lpt.training.loggers.build import build_loggers, closing, show_on_dashboards
from lpt.training.loggers.finished_run import FinishedRun
from lpt.training.module import NotFiniteError, PromptModule
from lpt.training.optimizer import Schedule
from lpt.training.predictions import SplitPredictions
from lpt.training.record import completed_run, training_facts, training_summary
from lpt.training.result import CROSS_VALIDATION, FILE, CompletedRun, is_taken, write_failure, write_result
from lpt.training.summary import show_result
from lpt.training.together import lost_process
from lpt.training.trainer import build_trainer, quiet_lightning
from lpt.training.tuning import tune

SHOWN = 16  # rows that an error names


def run(
    config: Config,
    run_dir: Path,
    sweep: str | None = None,
    rows: Splits | None = None,
    started: float | None = None,
) -> CompletedRun:
    """Train and test what `config` describes; leave `result.json` and the rest in `run_dir`.

    Args:
        config: from `lpt.config.schema.resolve`.
        run_dir: an existing folder.
        sweep: name of the sweep that this run is part of.
        rows: from `lpt.data.splits.read_rows`, where they have been read already.
        started: `time.perf_counter()` when the command was started; None: now.

    Returns:
        What `result.json` holds.

    Raises:
        LptError: bad input; `result.json` then says `"status": "failed"` and why.
    """
    started = time.perf_counter() if started is None else started
    rank = global_rank(config.trainer.devices)
    announce_rank(rank)
    if config.resume is None and (run_dir / FILE).exists() and is_taken(run_dir):
        raise LptError(f"{run_dir} already holds a run; choose another hydra.run.dir, or resume it: resume={run_dir}")
    try:
        return _run(config, run_dir, sweep, rows, started)
    except BaseException as error:
        if rank == 0:
            write_failure(run_dir, config, error)
        raise


def _run(config: Config, run_dir: Path, sweep: str | None, rows: Splits | None, started: float) -> CompletedRun:
    quiet_lightning()
    folds, lr_scores = None, None
    if config.fewshot.folds is not None or config.optim.lr_candidates:
        rows = read_rows(config.task, config.fewshot) if rows is None else rows
        if config.optim.lr_candidates:
            tuned = tune(config, rows, run_dir, train_part)
            config, lr_scores, folds = tuned.config, tuned.scores, tuned.folds
        else:
            folds = cross_validate(config, rows, run_dir, train_part)
    experiment = prepare(config, rows)
    cache = build_cache(config)
    data, module = build_data(experiment, cache), build_module(experiment)
    checkpoints = Checkpoints(run_dir, config.task.metrics[0], config.trainer.save_every) if experiment.trains else None
    begin, first_step = (None, 0) if config.resume is None else checkpoint_to_resume(run_dir)
    loggers = build_loggers(config, run_dir, sweep, first_step)
    with closing(loggers):
        validates = experiment.rows.validation is not None
        trainer = build_trainer(config, experiment.placement, experiment.plan, loggers, checkpoints, validates, run_dir)
        if checkpoints is not None:
            try:
                fit(trainer, module, data, begin)
            except NotFiniteError as error:
                raise explained(error, config, data, run_dir) from None
            checkpoints.restore_best(trainer, module, data)
        predictions = ({} if folds is None else {CROSS_VALIDATION: folds}) | evaluate(
            trainer, module, data, validates, list(experiment.rows.tests())
        )
        predictions, calibration = calibrate(experiment, predictions)
        best_step = 0 if checkpoints is None else checkpoints.best_step
        train = training_facts(trainer, module, experiment.placement.accelerator, experiment.plan, best_step)
        seconds = time.perf_counter() - started
        certificate = module.certificate
        result = completed_run(experiment, predictions, train, cache, best_step, seconds, certificate, calibration)
        result = replace(result, lr_scores=lr_scores)
        if trainer.is_global_zero:
            write_files(experiment, predictions, result, run_dir)
            write_result(run_dir, result)  # before anything that may fail for reasons of its own
            if not part_name():
                show_result(result, run_dir, config)
            shown = [name for name in predictions if name != "validation"]
            tests = {name: (predictions[name], rows_of(experiment, name)) for name in shown}
            show_on_dashboards(loggers, FinishedRun(result, tests, config, run_dir))
    return result


def train_part(config: Config, run_dir: Path, rows: Splits) -> CompletedRun:
    """Run a fold or a candidate, on these rows."""
    return run(config, run_dir, rows=rows)


def build_cache(config: Config) -> TrunkCache:
    """The cache of states entering layer k, as the configuration wants it."""
    belongs_to = {"backbone": config.backbone.name, "task": config.task.name}
    return TrunkCache(config.cache.mode, config.cache.max_bytes, belongs_to=belongs_to, say=say)


def build_data(experiment: Experiment, cache: TrunkCache) -> PromptData:
    """The batches of an experiment, for Lightning."""
    config = experiment.config
    described = experiment.rows.describe(config.task.classes)
    return PromptData(
        experiment.splits,
        experiment.classifier,
        cache,
        in_common={"data": described["fingerprint"], "configuration": asdict(replace(config, resume=None))},
        batch_size=config.optim.batch_size,
        gradient_accumulation=experiment.plan.gradient_accumulation,
        eval_batch_size=config.trainer.eval_batch_size,
        seed=config.seed,
    )


def build_module(experiment: Experiment) -> PromptModule:
    """The steps of training and evaluation, for Lightning."""
    config, plan = experiment.config, experiment.plan
    optim = config.optim
    head_lr = config.head.lr or optim.lr
    schedule = Schedule(optim.lr, head_lr, optim.weight_decay, plan.warmup_steps, plan.total_steps)
    return PromptModule(experiment.classifier, config.task.metrics, schedule, config.seed)


def fit(trainer: pl.Trainer, module: PromptModule, data: PromptData, checkpoint: Path | None) -> None:
    """Train, from this checkpoint on if there is one.

    Raises:
        KeyboardInterrupt: Ctrl-C, also where Lightning makes something else of it.
        NotFiniteError: a loss, a gradient or a score is not finite.
        LptError: another process of the run is lost.
    """
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # how Lightning ends after Ctrl-C
        raise KeyboardInterrupt("interrupted") from None
    except RuntimeError as error:
        lost = lost_process(trainer, error)
        if lost is None:
            raise
        raise lost from None


def explained(error: NotFiniteError, config: Config, data: PromptData, run_dir: Path) -> LptError:
    """The same error with its rows, the usual causes, and the command that looks for the cause."""
    index = data.splits["train"].labeled.index
    rows = [str(index[row]) for row in data.rows_of(max(error.step, 1))]
    shown = ", ".join(rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
    return LptError(
        f"{error}, and training has ended there. Its training rows (index in the source): {shown}. Usual causes: a "
        f"learning rate that is too high (optim.lr={config.optim.lr:g}), or float16 (trainer.precision=bf16 or 32 has "
        f"a larger range). To see which row and which module it was: {shlex.join(['lpt', 'replay', str(run_dir)])}"
    )


def evaluate(
    trainer: pl.Trainer, module: PromptModule, data: PromptData, validates: bool, tests: list[str]
) -> dict[str, SplitPredictions]:
    """What the model says of the validation rows, if there are any, and of each of these test sets, by split."""
    predictions = {}
    if validates:
        trainer.validate(module, datamodule=data, verbose=False)
        predictions["validation"] = module.take_predictions()
    for name in tests:
        data.test_split = module.test_split = name
        trainer.test(module, datamodule=data, verbose=False)
        predictions[name] = module.take_predictions()
    return predictions


def rows_of(experiment: Experiment, name: str) -> EncodedSplit:
    """The rows that these predictions are of: cross-validation answers the training rows."""
    return experiment.splits["train" if name == CROSS_VALIDATION else name]


def write_files(
    experiment: Experiment, predictions: dict[str, SplitPredictions], result: CompletedRun, run_dir: Path
) -> None:
    """Write `predictions/<split>.jsonl`, and `adapter/` where something was trained."""
    for name, found in predictions.items():
        path = run_dir / "predictions" / f"{name}.jsonl"
        config = experiment.config
        found.write(path, rows_of(experiment, name), config.task.labels, config.trainer.keep_text)
    if experiment.trains:
        classifier = experiment.classifier
        training = training_summary(result, predictions.get(result.judged_on), experiment.config)
        classifier.config = replace(classifier.config, training=training, versions=result.versions)
        classifier.save_pretrained(run_dir / IN_RUN)
