"""What a run leaves in `result.json`: the only module that writes or reads it.

The file is always valid JSON: a number that is not finite is written as null, and read back as NaN.
"""

import json
import math
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lpt.cache.facts import CacheFacts
from lpt.config.schema import Config
from lpt.data.audit import Audit
from lpt.errors import LptError
from lpt.files import write_text

FILE = "result.json"
CROSS_VALIDATION = "cross_validation"  # the split that the answers of all folds are
FORMAT = 2  # raised when a field changes its name or meaning

T = TypeVar("T")


class ResultFormatError(LptError):
    """A `result.json` of another format than this version reads."""


@dataclass(frozen=True)
class Fewshot:
    """How the training rows were drawn; the fields are those of the configuration's `fewshot`."""

    protocol: str
    k: int | None
    k_dev: int
    seed: int
    folds: int | None = None


@dataclass(frozen=True)
class LatePromptFacts:
    """Where the trained part begins, and the prompt that enters there; None where the method writes no prompt."""

    layer: int
    # k, 1..L.
    prompt_length: int | None
    generator: str | None
    bottleneck: int | None
    read_only: bool = False
    # Whether the text sees nothing of what is trained.


@dataclass(frozen=True)
class DataFacts:
    """The rows of each split: `train`, `validation`, `test` and any further test sets."""

    sizes: dict[str, int]
    sizes_per_class: dict[str, dict[str, int]]
    fingerprint: dict[str, str]
    # Of text and label of every row.
    test_split: str
    # Which split of the source is the test set: "test", or "dev" where the test split has no labels.
    truncated: dict[str, float]
    # Fraction of the texts that were truncated.
    audit: Audit = field(default_factory=Audit)
    # Rows that were dropped, repeated, contradictory or shared between splits.


@dataclass(frozen=True)
class TrainFacts:
    """What training took; of this process alone if the run was resumed. Evaluation is not counted."""

    steps: int
    gradient_accumulation: int
    seconds: float
    steps_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int
    still_improving: bool = False
    # Whether the best step is the last one, after all that were planned: more of them may do better.


@dataclass(frozen=True)
class FreezeFacts:
    """The freeze certificate: checked when training had ended, or the run would have failed."""

    hash: str
    # Of every frozen parameter, the same before and after training.
    frozen_parameters: int
    trained: list[str]
    # Names of the trained parameters, exactly those of the optimizer.


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from meaning what they say (`lpt.calibration`), on each evaluated split."""

    temperature: float
    # Fitted on the validation rows; 1 where there are none, or nothing was trained.
    ece_before: dict[str, float]
    # Split -> expected calibration error at temperature 1.
    ece: dict[str, float]
    # Split -> that of the probabilities in predictions/ and of the adapter.


@dataclass(frozen=True)
class Hardware:
    """What times were measured on."""

    device: str
    devices: int
    threads: int | None
    # Of each process; None on a GPU.


@dataclass(frozen=True)
class GitState:
    """The code: its commit, and whether it has changed since."""

    commit: str
    changed: bool


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What was run, known before it starts."""

    task: str
    backbone: str
    method: str
    head: str
    seed: int
    fewshot: Fewshot


@dataclass(frozen=True, kw_only=True)
class FailedRun(RunIdentity):
    """A run that ended in an error."""

    status: Literal["failed"] = "failed"
    error: str


@dataclass(frozen=True, kw_only=True)
class CompletedRun(RunIdentity):
    """A run that was trained and tested; `metrics` are those of the best step on the validation rows."""

    status: Literal["completed"] = "completed"
    lpt: LatePromptFacts
    settings: dict[str, Any]
    # Of the method.
    data: DataFacts
    metrics: dict[str, dict[str, float]]
    # Split -> name -> value, `loss` among them.
    intervals: dict[str, dict[str, tuple[float, float]]]
    # Split -> name -> 95% interval.
    primary_metric: str
    best_step: int
    trainable_parameters: int
    backbone_parameters: int
    train: TrainFacts
    cache: CacheFacts
    precision: str
    # PyTorch's name of the number format: float32, bfloat16 or float16.
    quantization: str | None
    attention: str
    backbone_commit: str | None
    # Of the hub's repository.
    wall_seconds: float
    # Since the command was started, loading included; since it was resumed, if it was.
    hardware: Hardware
    versions: dict[str, str]
    git: GitState | None
    # None outside a checkout.
    freeze: FreezeFacts | None = None
    # None where nothing was trained.
    calibration: Calibration | None = None
    # None for a regression.
    lr_scores: dict[str, float] | None = None
    # Candidate of optim.lr_candidates -> its score; None where none were tried. The first of the best was taken.

    @property
    def judged_on(self) -> str:
        """The split that the run is judged by: the test rows, or, without any, those of cross-validation."""
        return CROSS_VALIDATION if "test" not in self.metrics and CROSS_VALIDATION in self.metrics else "test"

    @property
    def objective(self) -> float:
        """The primary metric on the validation rows, or cross-validated; NaN where there is neither."""
        found = self.metrics.get("validation") or self.metrics.get(CROSS_VALIDATION) or {}
        return found.get(self.primary_metric, math.nan)


def identity(config: Config) -> RunIdentity:
    """What is known of a run before it starts."""
    few = config.fewshot
    return RunIdentity(
        task=config.task.name,
        backbone=config.backbone.name,
        method=config.method.name,
        head=config.head.name,
        seed=config.seed,
        fewshot=Fewshot(few.protocol, few.k, few.k_dev, few.seed, few.folds),
    )


def write_failure(folder: Path, config: Config, error: BaseException) -> None:
    """Write why a run has failed, unless it was a resumption of one that is completed."""
    if not isinstance(read_result(folder), CompletedRun):
        write_result(folder, FailedRun(**vars(identity(config)), error=str(error) or type(error).__name__))


def write_result(folder: Path, result: CompletedRun | FailedRun) -> None:
    """Write `result.json` into a run folder, whole or not at all.

    Raises:
        LptError: it cannot be written.
    """
    content = _finite({"format": FORMAT, **asdict(result)})
    write_text(folder / FILE, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_result(folder: Path) -> CompletedRun | FailedRun | None:
    """What a run has left in its folder; None where there is no `result.json`.

    Raises:
        ResultFormatError: the file is of another format.
        LptError: the file is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop("format", 1)
        if found == FORMAT:
            failed = content["status"] == "failed"
            return _build(FailedRun, content) if failed else _build(CompletedRun, content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LptError(f"{path} cannot be read: {error or type(error).__name__}") from None
    raise ResultFormatError(f"{path} has format {found}, and this version of lpt reads format {FORMAT}; run it again")


def is_taken(folder: Path) -> bool:
    """Whether there is a run in this folder; one that failed before its first checkpoint leaves nothing to lose."""
    if not (folder / ".hydra").exists() and not (folder / FILE).exists():
        return False
    try:
        failed = isinstance(read_result(folder), FailedRun)
    except LptError:
        return True
    return not failed or (folder / "checkpoints").exists()


def _finite(value: Any) -> Any:
    """The same with null for each number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _build(cls: type[T], content: dict[str, Any]) -> T:
    hints = _hints(cls)  # type: ignore[arg-type]
    unknown = content.keys() - hints.keys()
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}")
    return cls(**{f.name: _read(hints[f.name], content[f.name]) for f in fields(cls) if f.name in content})  # type: ignore[arg-type]


def _read(hint: Any, value: Any) -> Any:
    """A JSON value as the type that a field has."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(next(a for a in arguments if a is not type(None)), value)
    if origin is Literal or hint is Any:
        return value
    if origin is dict:
        return {key: _read(arguments[1], item) for key, item in _a(dict, value).items()}
    if origin is list:
        return [_read(arguments[0], item) for item in _a(list, value)]
    if origin is tuple:
        return tuple(_read(a, item) for a, item in zip(arguments, _a(list, value), strict=True))
    if is_dataclass(hint):
        return _build(hint, _a(dict, value))  # type: ignore[arg-type]
    if hint is float:
        return math.nan if value is None else float(_a((int, float), value))
    return _a(hint, value)


def _a(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{value!r} is not {kind}")
    return value
