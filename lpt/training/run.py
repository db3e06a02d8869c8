"""One experiment from configuration to result: rows, backbone, training, test, files."""

import logging
import math
import subprocess
import time
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lpt.adapter import AdapterConfig
from lpt.backbones.attention import LEAN
from lpt.backbones.pretrained import Pretrained, find_pretrained
from lpt.backbones.split import check_layer, max_length
from lpt.cache.trunk import TrunkCache
from lpt.classifier import LatePromptClassifier
from lpt.config.schema import Config
from lpt.data.batches import EncodedSplit, EvaluationBatches
from lpt.data.sources import load_rows
from lpt.data.splits import Splits, sample_splits
from lpt.data.templates import check_template
from lpt.errors import LptError
from lpt.generators import PromptGenerator
from lpt.hardware import (
    check_compiler,
    choose_accelerator,
    choose_attention,
    choose_dtype,
    choose_gradient_accumulation,
    describe_hardware,
    keep_freed_memory,
    peak_memory_bytes,
)
from lpt.heads import check_head
from lpt.methods import chosen_settings, only_in_training, trains_backbone
from lpt.ranks import global_rank
from lpt.training.dashboards import FinishedRun
from lpt.training.datamodule import PromptData
from lpt.training.loggers import build_loggers, finished, show_on_dashboards
from lpt.training.module import PromptModule, Schedule
from lpt.training.result import (
    FILE,
    CacheFacts,
    CompletedRun,
    DataFacts,
    FailedRun,
    Fewshot,
    GitState,
    Hardware,
    LatePromptFacts,
    RunIdentity,
    TrainFacts,
    read_result,
    write_result,
)
from lpt.training.summary import progress, say, show_result

PACKAGES = ("torch", "transformers", "pytorch-lightning", "hydra-core", "datasets", "lpt")


def run(config: Config, run_dir: Path, sweep: str | None = None) -> CompletedRun:
    """Train and test what `config` describes; leave `result.json` and the rest in `run_dir`.

    Args:
        config: from `lpt.config.schema.resolve`.
        run_dir: an existing folder.
        sweep: name of the sweep that this run is part of.

    Returns:
        What `result.json` holds.

    Raises:
        LptError: bad input; `result.json` then says `"status": "failed"` and why.
    """
    started = time.perf_counter()
    # Lightning learns it late where processes were started by hand.
    rank_zero_only.rank = global_rank(config.trainer.devices)  # type: ignore[attr-defined]
    if (run_dir / FILE).exists() and config.resume is None:
        raise LptError(f"{run_dir} already holds a run; choose another hydra.run.dir, or go on with resume={run_dir}")
    try:
        return _run(config, run_dir, sweep, started)
    except BaseException as error:
        # A resumption that fails leaves the result that is there.
        if global_rank(config.trainer.devices) == 0 and not isinstance(read_result(run_dir), CompletedRun):
            write_result(run_dir, FailedRun(**vars(_identity(config)), error=str(error) or type(error).__name__))
        raise


def _run(config: Config, run_dir: Path, sweep: str | None, started: float) -> CompletedRun:
    _quiet()
    trainer_config = config.trainer
    accelerator = choose_accelerator(trainer_config.accelerator, trainer_config.devices)
    # Weights that are trained are float32, whatever they are computed in.
    dtype = computed = choose_dtype(trainer_config.precision, accelerator)
    if trains_backbone(config.method.name):
        dtype, computed = torch.float32, torch.float32 if trainer_config.precision == "auto" else computed
    if accelerator == "cpu":
        keep_freed_memory()
    pretrained = find_pretrained(config.backbone.path, config.backbone.revision)
    _check_fit(config, pretrained)

    rows = sample_splits(load_rows(config.task), config.task.classes, **_sampling_options(config))
    say(f"{config.task.name}: {_describe_rows(rows, config)}")

    torch.manual_seed(config.seed)
    settings = chosen_settings(config)
    classifier = LatePromptClassifier(
        adapter_config(config, pretrained),
        pretrained,
        dtype,
        training={name: settings[name] for name in only_in_training(config.method.name) if name in settings},
        quantization=config.backbone.quantization,
        accelerator=accelerator,
    )
    splits = {
        name: EncodedSplit.encode(labeled, classifier.template, config.task.value_range)
        for name, labeled in rows.by_name().items()
    }
    truncated = {name: round(split.truncated_share, 4) for name, split in splits.items()}
    data_facts = DataFacts(**rows.describe(config.task.classes), truncated=truncated)
    _warn_about_rows(splits, classifier.config.max_length)
    backbone = classifier.method.backbone
    length = float(np.mean(splits["train"].lengths))
    attention = choose_attention(
        config.backbone.attention,
        accelerator,
        dtype,
        length,
        backbone.attention_dropout,
        backbone.family.attentions,
    )
    if attention == LEAN and computed is not dtype:
        attention = "eager"  # lean's backward pass knows nothing of autocast
    backbone.use_attention(attention)
    if config.generator.init != "default":
        _start_prompt(classifier, config.generator.init, splits["train"], config.seed)
    if config.head.calibrate:
        batches = EvaluationBatches(splits["train"].lengths, trainer_config.eval_batch_size)
        classifier.calibrate(splits["train"].collate(items, classifier.pad_id) for items in batches)
    if trainer_config.compile:
        check_compiler()
        backbone.compile(dynamic=True)

    optim = config.optim
    rows_per_device = optim.batch_size // trainer_config.processes
    gradient_accumulation = choose_gradient_accumulation(
        optim.gradient_accumulation, accelerator, rows_per_device, length + config.lpt.prompt_length
    )
    belongs_to = {"backbone": config.backbone.name, "task": config.task.name}
    cache = TrunkCache(config.cache.mode, config.cache.max_bytes, belongs_to=belongs_to, say=say)
    data = PromptData(
        splits,
        classifier,
        cache,
        batch_size=optim.batch_size,
        gradient_accumulation=gradient_accumulation,
        eval_batch_size=trainer_config.eval_batch_size,
        seed=config.seed,
    )
    steps_per_epoch = math.ceil(len(splits["train"]) / optim.batch_size)
    total_steps = trainer_config.max_steps
    if total_steps is None:
        total_steps = trainer_config.max_epochs * steps_per_epoch
    trains = total_steps > 0 and any(p.requires_grad for p in classifier.parameters())
    schedule = Schedule(
        optim.lr,
        config.head.lr or optim.lr,
        optim.weight_decay,
        round(optim.warmup_ratio * total_steps),
        total_steps,
    )
    module = PromptModule(classifier, config.task.metrics, schedule, config.seed)

    last = run_dir / "checkpoints" / "last.ckpt"
    first_step = _resumed_step(config, last) if config.resume is not None else 0
    loggers = build_loggers(config, run_dir, sweep, first_step)
    with finished(loggers):
        checkpoint = BestOnValidation(run_dir / "checkpoints", config.task.metrics[0])
        bar = progress(trainer_config.progress)
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=trainer_config.devices,
            num_nodes=trainer_config.nodes,
            # The frozen part has no buffers that change: nothing to broadcast at every step.
            strategy=DDPStrategy(broadcast_buffers=False) if trainer_config.processes > 1 else "auto",
            plugins=_precision_plugin(dtype, computed, accelerator),
            max_epochs=math.ceil(total_steps / steps_per_epoch),
            max_steps=total_steps,
            # In micro-batches, over epochs: evaluation is a matter of steps.
            val_check_interval=min(trainer_config.eval_every or steps_per_epoch, total_steps or 1)
            * gradient_accumulation,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            accumulate_grad_batches=gradient_accumulation,
            gradient_clip_val=optim.max_grad_norm,
            logger=loggers,
            log_every_n_steps=min(trainer_config.log_every, steps_per_epoch),
            callbacks=[
                *([checkpoint] if trains else []),
                bar,
            ],
            enable_checkpointing=trains,
            enable_progress_bar=isinstance(bar, ProgressBar),
            use_distributed_sampler=False,
            enable_model_summary=False,
            default_root_dir=run_dir,
        )
        if trains:
            try:
                trainer.fit(module, data, ckpt_path=None if config.resume is None else last, weights_only=True)
            except SystemExit:  # how Lightning ends after Ctrl-C
                raise KeyboardInterrupt("interrupted") from None
            checkpoint.restore_best(trainer, module, data)
        trainer.validate(module, datamodule=data, verbose=False)
        predictions = {"validation": module.take_predictions()}
        for name in rows.tests():
            data.test_split = module.test_split = name
            trainer.test(module, datamodule=data, verbose=False)
            predictions[name] = module.take_predictions()
        names = config.task.metrics
        result = CompletedRun(
            **vars(_identity(config)),
            lpt=_late_prompt(classifier),
            settings=classifier.config.settings,
            data=data_facts,
            metrics={split: found.metrics(names) | {"loss": found.loss} for split, found in predictions.items()},
            intervals={split: found.intervals(names) for split, found in predictions.items()},
            primary_metric=names[0],
            best_step=checkpoint.best_step if trains else 0,
            trainable_parameters=sum(p.numel() for p in classifier.parameters() if p.requires_grad),
            backbone_parameters=sum(p.numel() for p in backbone.parameters()),
            train=_training_facts(trainer, module, accelerator),
            cache=CacheFacts(**cache.facts),
            precision=str(computed).removeprefix("torch."),
            quantization=config.backbone.quantization,
            attention=attention,
            backbone_commit=pretrained.commit,
            wall_seconds=round(time.perf_counter() - started, 2),
            hardware=Hardware(**describe_hardware(accelerator, trainer_config.processes)),
            versions={name: version(name) for name in PACKAGES},
            git=_git_state(),
        )
        if trainer.is_global_zero:
            for name, found in predictions.items():
                found.write(run_dir / "predictions" / f"{name}.jsonl", splits[name], config.task.labels)
            if trains:
                classifier.save_pretrained(run_dir / "adapter")
            tests = {name: (predictions[name], splits[name]) for name in rows.tests()}
            show_on_dashboards(loggers, FinishedRun(result, tests, config, run_dir))
            write_result(run_dir, result)
            show_result(result, run_dir)
    return result


def adapter_config(config: Config, pretrained: Pretrained) -> AdapterConfig:
    """What the classifier of this configuration is, for building and for loading it again."""
    path, settings = config.backbone.path, chosen_settings(config)
    template = config.task.template.decoder if pretrained.family.causal else config.task.template.encoder
    return AdapterConfig(
        task=config.task.name,
        # A local folder is found again from anywhere.
        backbone=str(Path(path).expanduser().absolute()) if Path(path).expanduser().is_dir() else path,
        revision=pretrained.commit or config.backbone.revision,
        method=config.method.name,
        settings={name: value for name, value in settings.items() if name not in only_in_training(config.method.name)},
        head=config.head.name,
        head_settings=config.head.own(),
        labels=config.task.labels,
        label_words=config.task.label_words or {},
        template=template,
        answer=config.task.template.answer,
        max_length=min(config.task.max_length, max_length(pretrained.config)),
        value_range=config.task.value_range,
    )


def _check_fit(config: Config, pretrained: Pretrained) -> None:
    """Complain about what does not fit the backbone before weights and rows are read."""
    if config.lpt.layer is not None:
        check_layer(config.lpt.layer, pretrained.config.num_hidden_layers, config.backbone.name)
    task = config.task
    causal = pretrained.family.causal
    check_template(task.template.decoder if causal else task.template.encoder, causal)
    check_head(config.head.name, causal)


def _sampling_options(config: Config) -> dict[str, Any]:
    few = config.fewshot
    return {"protocol": few.protocol, "k": few.k, "k_dev": few.k_dev, "seed": few.seed}


class BestOnValidation(ModelCheckpoint):
    """Keeps the best step and the last one. Ties go to the earlier step: a later one must be strictly better."""

    def __init__(self, folder: Path, metric: str):
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=f"validation/{metric}",
            mode="max",
            save_top_k=1,
            save_last=True,
            enable_version_counter=False,
        )
        self.best_step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have every process see the folder: each reads its best step in the end, and resumes from it."""
        super().setup(trainer, pl_module, stage)
        folder = Path(str(self.dirpath))
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
        trainer.strategy.barrier("checkpoint folder made")
        if not trainer.strategy.reduce_boolean_decision(folder.is_dir()):
            raise LptError(f"hydra.run.dir={folder.parent} is not on a disk that all nodes share; choose one that is")

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        path = Path(filepath)
        before = path.stat().st_mtime_ns if path.is_file() else None
        super()._save_checkpoint(trainer, filepath)
        # Lightning swallows some errors of writing.
        if trainer.is_global_zero and (not path.is_file() or path.stat().st_mtime_ns == before):
            raise LptError(f"the checkpoint {filepath} could not be written; is the disk full or the folder read-only?")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also where the run folder was moved since: Lightning would forget the best step then."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"dirpath": self.dirpath, "best_k_models": best})

    def restore_best(self, trainer: pl.Trainer, module: PromptModule, data: PromptData) -> None:
        """Put the best step's values into the module.

        Where training ended between two evaluations, its end is evaluated too and kept if it is better.
        """
        assert self.monitor is not None
        if self._last_global_step_saved != trainer.global_step:
            end = trainer.validate(module, datamodule=data, verbose=False)[0][self.monitor]
            if self.best_model_score is None or end > self.best_model_score:
                self.best_model_path = str(Path(str(self.dirpath)) / "best.ckpt")
                self._save_checkpoint(trainer, self.best_model_path)
        best = torch.load(self.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"], strict=False)
        self.best_step = best["global_step"]


def _resumed_step(config: Config, last: Path) -> int:
    if not last.is_file():
        raise LptError(f"resume={config.resume}: it was cut before its first checkpoint; start it again instead")
    return torch.load(last, map_location="cpu", weights_only=True)["global_step"]


def _start_prompt(classifier: LatePromptClassifier, init: str, split: EncodedSplit, seed: int) -> None:
    """Have the prompt start from rows that the model knows: embeddings of random words, or states of training texts."""
    generator, backbone = classifier.method.generator, classifier.method.backbone
    assert isinstance(generator, PromptGenerator)
    random = torch.Generator().manual_seed(seed)
    if init == "states":
        generator.start_from(_random_states(classifier, split, generator.prompt_length, random))
        return
    embedding_VE = backbone.model.get_input_embeddings().weight
    if embedding_VE.shape[1] != backbone.hidden_size:
        raise LptError(
            f"generator.init=vocabulary: {backbone.name} has embeddings of {embedding_VE.shape[1]}, and a prompt of "
            f"H={backbone.hidden_size} cannot start from them; use generator.init=states"
        )
    rows_P = torch.randint(len(embedding_VE), (generator.prompt_length,), generator=random)
    generator.start_from(embedding_VE[rows_P.to(embedding_VE.device)])


def _random_states(
    classifier: LatePromptClassifier, split: EncodedSplit, count: int, random: torch.Generator
) -> torch.Tensor:
    """States entering layer k, `[count, H]`, each of a random token of a random text.

    Not of first tokens: in decoders their states may be a hundred times as large as others.
    """
    rows = []
    for text in torch.randint(len(split), (count,), generator=random).tolist():
        batch = split.collate([(text, 1.0)], classifier.pad_id).to(classifier.method.backbone.model.device)
        h_TH = classifier.method.trunk(batch.input_ids, batch.attention_mask)[0]
        rows.append(h_TH[torch.randint(min(1, len(h_TH) - 1), len(h_TH), (), generator=random)])
    return torch.stack(rows)


def _late_prompt(classifier: LatePromptClassifier) -> LatePromptFacts:
    settings = classifier.config.settings
    prompt = settings if "generator" in settings else {}
    return LatePromptFacts(
        classifier.method.backbone.layer,
        prompt.get("prompt_length"),
        prompt.get("generator"),
        prompt.get("bottleneck"),
    )


def _precision_plugin(dtype: torch.dtype, computed: torch.dtype, accelerator: str) -> Precision:
    """The backbone already has its number format, and what is trained is float32; only fp16 needs loss scaling."""
    if computed is torch.float16:
        return MixedPrecision("16-mixed", "cuda")
    if computed is not dtype:
        return MixedPrecision("bf16-mixed", "cuda" if accelerator == "gpu" else "cpu")
    return Precision()


def _training_facts(trainer: pl.Trainer, module: PromptModule, accelerator: str) -> TrainFacts:
    seconds = module.train_seconds
    tokens = trainer.strategy.reduce(
        torch.tensor(float(module.train_tokens), device=trainer.strategy.root_device), reduce_op="sum"
    )
    return TrainFacts(
        steps=trainer.global_step,
        gradient_accumulation=trainer.accumulate_grad_batches,
        seconds=round(seconds, 3),
        steps_per_second=round(module.train_steps / seconds, 3) if seconds else 0.0,
        tokens_per_second=round(float(tokens) / seconds, 1) if seconds else 0.0,
        peak_memory_bytes=peak_memory_bytes(accelerator),
    )


def _identity(config: Config) -> RunIdentity:
    return RunIdentity(
        task=config.task.name,
        backbone=config.backbone.name,
        method=config.method.name,
        head=config.head.name,
        seed=config.seed,
        fewshot=Fewshot(**asdict(config.fewshot)),
    )


def _describe_rows(rows: Splits, config: Config) -> str:
    facts = rows.describe(config.task.classes)
    few = config.fewshot
    parts = []
    for name, sizes in facts["sizes_per_class"].items():
        classes = ", ".join(f"{size} {label}" for label, size in sizes.items())
        about = [*([classes] if classes else []), facts["fingerprint"][name][:8]]
        parts.append(f"{facts['sizes'][name]} {name} ({'; '.join(about)})")
    drawn = f"drawn with fewshot={few.protocol} fewshot.seed={few.seed}"
    test = "" if rows.test_split == "test" else f"; the test set is the {rows.test_split} split"
    return f"{'; '.join(parts)}; {drawn}{test}"


def _warn_about_rows(splits: dict[str, EncodedSplit], limit: int) -> None:
    for name, split in splits.items():
        if split.truncated_share:
            say(f"{split.truncated_share:.1%} of the {name} texts are cut to {limit} tokens (task.max_length)")
    known = set(splits["train"].labeled.sentences)
    for name, split in splits.items():
        shared = sum(sentences in known for sentences in split.labeled.sentences)
        if shared and name not in ("train", "validation"):
            say(f"warning: {shared} of the {len(split)} {name} texts are training texts too")


def _git_state() -> GitState | None:
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return GitState(commit.stdout.strip(), bool(status.stdout.strip()))


def _quiet() -> None:
    """Keep what a person should read; Lightning's tips and notes on what we chose on purpose go."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    for note in (
        "does not have many workers",  # rows are in memory
        "GPU available but not used",
        "Checkpoint directory .* exists and is not empty",  # as it does when resuming
        "Found .* module\\(s\\) in eval mode",  # the trunk
        "Experiment logs directory",
        "It is recommended to use .self.log",  # every rank logs what it has gathered from all
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
        "`broadcast_buffers` is deprecated",  # in favor of what older releases of torch do not know
    ):
        warnings.filterwarnings("ignore", message=f".*{note}")
