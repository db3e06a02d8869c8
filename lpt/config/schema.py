"""The options of a run. Each field's meaning is beneath it, as `--help` shows it; its allowed values are in its type.

What a method, generator or head has of its own, its class declares (`lpt.config.declarations`).
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from lpt.backbones.names import ACCELERATORS, ATTENTIONS, AUTO, PRECISIONS, QUANTIZATIONS
from lpt.config.place import CONF_DIR as CONF_DIR
from lpt.data.tasks import Task
from lpt.ranges import above, at_least, fraction, one_of

USUAL_CANDIDATES = ("full", "lora", "prompt_tuning", "lpt", "lpt_cached", "lpt_read_only_cached")
Count = Annotated[int, at_least(1)]
Seed = Annotated[int, at_least(0)]


@dataclass
class BackboneConfig:
    """The frozen language model."""

    name: str = MISSING
    # The backbone's name in results. By default, that of the chosen file, or of backbone.path where only that is given.
    path: str = MISSING
    # Hub id, local folder, wheel://<package>==<version>/<path inside>, or, for lpt bench,
    # random://<model type>?<field of its config>=<number>&...
    revision: str | None = None
    # Branch, tag or commit of a hub id.
    attention: Annotated[str, one_of(AUTO, *ATTENTIONS)] = AUTO
    # auto: the fastest for device, number format, dropout and text length; lean is for short texts on a CPU.
    quantization: Annotated[str | None, one_of(*QUANTIZATIONS)] = None
    # Number format of the layers' weights: int8, or on GPUs nf4 (4 bits). What is trained stays float32.


@dataclass
class FewshotConfig:
    """The rows that are trained on."""

    protocol: Annotated[str, one_of("full", "total", "per_class")] = "full"
    # full; total: k rows in all, as the paper draws them; per_class: k rows of each class, as LM-BFF does.
    k: Count | None = None
    # Training rows, in all or of each class.
    k_dev: Annotated[int, at_least(0)] = 1000
    # Validation rows taken from the training split, in all or of each class. 0: none, the last step is kept.
    folds: Annotated[int | None, at_least(2)] = None
    # Cross-validation: so many runs, each tested on another part of the training rows; then one on all of them, which
    # is the result. None of them has validation rows.
    seed: Seed = 13
    # Seed of the draw. By default, the run's seed.


@dataclass
class DeclaredConfig:
    """What `name` chooses, with the options that its class declares."""

    name: str = MISSING

    def own(self) -> dict[str, Any]:
        """The options that the class declares, and their values."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if "option" in f.metadata}


@dataclass
class MethodConfig(DeclaredConfig):
    """What is trained."""

    name: str = MISSING
    # The method; docs/methods.md has a section on each.


@dataclass
class LptConfig:
    """Where the method begins, whether the text sees it, and its late prompt."""

    layer: Count | None = None
    # k, 1..L: the first layer that sees what is trained. null: the method's own choice, L // 2 + 1 for method=lpt.
    # 1 is a prompt at the input.
    prompt_length: Count = 5
    # P, prompt tokens.
    bottleneck: Count = 128
    # m, inner size of the generator.
    read_only: bool | None = None
    # The text does not see what is trained, which reads the text: a step costs P + 1 tokens instead of P + T, whatever
    # the length of the text (docs/methods.md). null: true of a prompt alone that is late, on backbones that can; false
    # of other methods. false is the paper's form.
    dropout: bool = False
    # Dropout inside the frozen layers k..L while training, at the backbone's own rates.
    trunk_dropout: bool = False
    # Dropout below layer k too, as in the paper's code. Nothing is cached then.


@dataclass
class GeneratorConfig(DeclaredConfig):
    """The network that writes the prompt."""

    name: str = MISSING
    # The paper's names; none is one learned prompt for every input.
    normalize: bool = False
    # Read and write in units of the states' size, which differs from layer to layer and from token to token.
    dropout: Annotated[float | None, fraction()] = None
    # Rate on the prompt. null: the backbone's hidden dropout with lpt.dropout=true, else 0.
    init: Annotated[str, one_of("default", "states", "vocabulary")] = "default"
    # What the prompt starts from. states: states entering layer k of training texts; vocabulary: embeddings of random
    # words.


@dataclass
class HeadConfig(DeclaredConfig):
    """How class scores are read from the read-out state."""

    name: str = MISSING
    # continuation (decoders) scores the whole answer; linear is for encoders without a language-model head.
    calibrate: bool = False
    # With method=zero_shot: subtract each class's mean score over the training texts. Labels are not used.
    lr: Annotated[float | None, above(0)] = None
    # Learning rate of a head that is trained. null: optim.lr.


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and linear decay."""

    lr: Annotated[float, above(0)] = 3e-3
    # Learning rate after warm-up. Each method brings its own default (docs/methods.md).
    lr_candidates: list[Annotated[float, above(0)]] = field(default_factory=list)
    # Learning rates to try instead, such as [5e-4,2e-3]: the one that does best on the validation rows, or by folds.
    weight_decay: Annotated[float, at_least(0)] = 0.1
    # Decoupled weight decay of matrices; biases and norms have none.
    warmup_ratio: Annotated[float, fraction()] = 0.06
    # Fraction of all steps in which the rate rises from 0.
    batch_size: Count = 16
    # Rows per step, over all devices, nodes and micro-batches.
    gradient_accumulation: Count | None = None
    # Micro-batches per step: same result, less memory. null: 1 on GPUs; on a CPU, as many as cost no time.
    max_grad_norm: Annotated[float, above(0)] = 1.0
    # Gradients of a larger norm are scaled down to it.


@dataclass
class TrainerConfig:
    """How long, where and how precisely to train."""

    max_epochs: Count | None = None
    # Passes over the training rows. null: 6, and of few rows as many as 300 steps take.
    min_steps: Annotated[int, at_least(0)] = 0
    # Optimizer steps at least: of few rows, more passes than max_epochs.
    max_steps: Annotated[int | None, at_least(0)] = None
    # Optimizer steps, instead of max_epochs and min_steps. 0: evaluate the untrained model.
    patience: Count | None = None
    # Evaluations in a row without a better score after which training ends. null: it goes to its end.
    eval_every: Count | None = None
    # Steps between evaluations. null: an epoch, or a twentieth of training where that is more.
    eval_batch_size: Count = 32
    # Rows per device and evaluation batch.
    accelerator: Annotated[str, one_of(AUTO, *ACCELERATORS)] = AUTO
    # auto takes a GPU where there is one.
    devices: Count = 1
    # GPUs, or CPU processes, on each node.
    nodes: Count = 1
    # Machines. With several, srun or torchrun starts the processes: docs/sweeps.md.
    precision: Annotated[str, one_of(AUTO, *PRECISIONS)] = AUTO
    # Number format of the backbone. auto: bf16 where the hardware computes it fast, else float32. What is trained stays
    # float32.
    compile: bool = False
    # Have torch.compile fuse layers k..L: faster steps after a minute or more of compiling.
    save_every: Annotated[float, above(0)] = 300.0
    # Seconds between checkpoints to resume from; every evaluation leaves one too.
    log_every: Count = 10
    # Steps between lines of metrics.csv.
    keep_text: Annotated[int, at_least(0)] = 1000
    # Characters of each text that predictions/<split>.jsonl keeps for lpt review; a cut text ends in …. 0: no texts.
    progress: bool = True
    # A live bar on a terminal, beneath the lines that each evaluation prints.

    @property
    def processes(self) -> int:
        """One for each device of each node."""
        return self.nodes * self.devices


@dataclass
class LoggerConfig:
    """Where metrics go."""

    name: Annotated[str, one_of("csv", "wandb", "tensorboard", "mlflow", "none")] = "csv"
    # csv: metrics.csv in the run folder; wandb, tensorboard and mlflow write it too.
    project: str = "late-prompt-tuning"
    # Project of W&B, experiment of MLflow.
    group: str | None = None
    # Group of W&B and MLflow. null: the name of the sweep that the run is part of.
    offline: bool = False
    # W&B: write to the run folder alone, to be synced later. Without a key, it is so anyway.
    rows: Annotated[int, at_least(0)] = 500
    # Most rows of a table of predictions, the most confident mistakes first. 0: no tables.
    adapter: bool = True
    # Keep the adapter as an artifact of W&B or MLflow.


@dataclass
class CacheConfig:
    """What the frozen model says of the texts, computed once and kept."""

    mode: Annotated[str, one_of("auto", "disk", "memory", "off")] = "auto"
    # auto: on disk if it fits the budget, for later runs to reuse; else in memory; else off.
    max_bytes: Annotated[int | None, at_least(0)] = None
    # The budget in bytes. null: a quarter of the free disk or memory.


@dataclass
class BenchConfig:
    """What `lpt bench` measures, on random rows. Only `lpt bench` reads these."""

    step: Annotated[str, one_of("train", "evaluate")] = "train"
    # train: an optimizer step; evaluate: a batch scored, without gradient.
    methods: list[str] = field(default_factory=lambda: list(USUAL_CANDIDATES))
    # Candidates. full, lora, alora, prompt_tuning: Hugging Face's own forward pass, by peft; per_label: one pass for
    # each label, to evaluate. Any other method of train.py is measured as it trains; late_ in front has it begin at
    # lpt.layer, _read_only behind has it read the text once, _cached behind that has it use what is cached:
    # late_lora_cached, lpt_read_only_cached, for example.
    precisions: list[Annotated[str, one_of(AUTO, *PRECISIONS)]] = field(default_factory=lambda: ["32", "bf16"])
    # Number formats.
    vary: str | None = None
    # An option to measure and plot the cost against, such as lpt.layer; its values are bench.values.
    values: list[Any] = field(default_factory=list)
    # Values of the option that bench.vary names.
    tokens: Count = 128
    # Tokens of each row.
    labels: Count = 2
    # Classes.
    steps: Count = 10
    # Timed steps, after two that are not.
    output: str | None = None
    # Folder for table, JSON and plot. null: runs/<time>_bench_<backbone>.


@dataclass
class Config:
    """Everything about one run."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    task: Task = field(default_factory=Task)
    fewshot: FewshotConfig = field(default_factory=FewshotConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    lpt: LptConfig = field(default_factory=LptConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    seed: Seed = 13
    # Seed of the initial values, the order of rows, and dropout.
    plugins: list[str] = field(default_factory=list)
    # Python files of your own that register methods, generators or heads. Given on the command line.
    resume: str | None = None
    # Run folder to resume.
    # Which recipe and experiment were chosen; their files set the other options.
    recipe: Any = None
    experiment: Any = None


@dataclass
class LocalQueueConfig:
    """How the points of a sweep (-m) are worked on. hydra/launcher=submitit_slurm and hydra/sweeper=optuna add more."""

    _target_: str = "hydra_plugins.lpt.LocalQueue"
    workers: Count | None = None
    # Points at a time. null: as many as there are GPUs for; on a CPU, one.
    retries: Annotated[int, at_least(0)] = 1
    # How often a point that fails is tried again, from its last checkpoint. Wrong options are never tried again.
    grace_period: Annotated[float, at_least(0)] = 10.0
    # Seconds that points have to end by themselves after Ctrl-C, before they are killed.
    accept_drift: bool = False
    # Continue in a folder whose completed points were computed with other defaults than today's.


@dataclass
class SubmititSlurmConfig(LocalQueueConfig):
    """How a cluster works on the points of a sweep (-m with hydra/launcher=submitit_slurm)."""

    _target_: str = "hydra_plugins.lpt.SubmititSlurm"
    workers: Count | None = None
    # Jobs at a time. null: all, as the cluster has a queue of its own.
    cluster: Annotated[str, one_of("slurm", "local")] = "slurm"
    # slurm, or local to try it out.
    parameters: Any = None
    # Parameters of submitit's executor: {slurm_partition: gpu, timeout_min: 120, cpus_per_task: 8, mem_gb: 32}.


@dataclass
class OptunaConfig:
    """How a search goes (-m with hydra/sweeper=optuna)."""

    _target_: str = "hydra_plugins.lpt.Optuna"
    trials: Count = 20
    # Trials of the whole study; the same command into the same folder resumes it.
    parallel_trials: Count = 1
    # Trials proposed together; as many as hydra.launcher.workers makes sense.
    startup_trials: Count = 5
    # Trials at random, and never pruned, to begin with.
    prune: bool = True
    # End trials that are worse at a step than the median of the earlier ones was.
    seed: int = 13
    # Seed of the proposals.
    params: Any = None
    # Option -> values, for experiment files: {optim.lr: "tag(log, interval(1e-4, 1e-2))"}.


PLUGIN_SCHEMAS = (LocalQueueConfig, SubmititSlurmConfig, OptunaConfig)  # found by their _target_
