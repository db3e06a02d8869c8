"""GLUE's test sets, whose labels only its server has, and the submission files it accepts (gluebenchmark.com)."""

from collections.abc import Iterator
from dataclasses import dataclass

from lpt.adapter import AdapterConfig
from lpt.classifier import Prediction
from lpt.data.folders import find_folder
from lpt.data.readers import read_file
from lpt.data.reading import Reading
from lpt.errors import LptError


@dataclass(frozen=True)
class GlueTask:
    """One of GLUE's tasks: where its test rows are, and what its server expects.

    Attributes:
        folder: folder of the task in GLUE's download.
        columns: for each text, its column in the test files, then what it is called in training data of other sources.
        answers: the server's name of each label; None where it expects a number.
        test_sets: name, number of rows and submission file of each test file.
    """

    folder: str
    columns: tuple[tuple[str, ...], ...]
    answers: dict[str, str] | None
    test_sets: tuple[tuple[str, int, str], ...]


def _in_order(*labels: str) -> dict[str, str]:
    return {label: str(i) for i, label in enumerate(labels)}


def _by_name(*labels: str) -> dict[str, str]:
    return {label: label for label in labels}


def _one(folder: str, rows: int) -> tuple[tuple[str, int, str], ...]:
    return (("test.tsv", rows, f"{folder}.tsv"),)


PAIR = (("sentence1",), ("sentence2",))
GLUE = {
    "cola": GlueTask("CoLA", (("sentence", "4"),), _in_order("unacceptable", "acceptable"), _one("CoLA", 1063)),
    "sst2": GlueTask("SST-2", (("sentence",),), _in_order("negative", "positive"), _one("SST-2", 1821)),
    "mrpc": GlueTask(
        "MRPC",
        (("#1 String", "sentence1"), ("#2 String", "sentence2")),
        _in_order("not_equivalent", "equivalent"),
        _one("MRPC", 1725),
    ),
    "stsb": GlueTask("STS-B", PAIR, None, _one("STS-B", 1379)),
    "qqp": GlueTask(
        "QQP", (("question1",), ("question2",)), _in_order("not_duplicate", "duplicate"), _one("QQP", 390965)
    ),
    "mnli": GlueTask(
        "MNLI",
        (("sentence1", "premise"), ("sentence2", "hypothesis")),
        _by_name("entailment", "neutral", "contradiction"),
        (("test_matched.tsv", 9796, "MNLI-m.tsv"), ("test_mismatched.tsv", 9847, "MNLI-mm.tsv")),
    ),
    "qnli": GlueTask(
        "QNLI", (("question",), ("sentence",)), _by_name("entailment", "not_entailment"), _one("QNLI", 5463)
    ),
    "rte": GlueTask("RTE", PAIR, _by_name("entailment", "not_entailment"), _one("RTE", 3000)),
    "wnli": GlueTask("WNLI", PAIR, _in_order("not_entailment", "entailment"), _one("WNLI", 146)),
}


def glue_task(config: AdapterConfig) -> GlueTask:
    """Return GLUE's task for an adapter.

    Raises:
        LptError: the adapter's task is not one of GLUE's, or has other labels.
    """
    if config.task not in GLUE:
        raise LptError(f"--glue: the adapter's task {config.task!r} is not one of GLUE's ({', '.join(GLUE)})")
    task = GLUE[config.task]
    if task.answers is None:
        if config.value_range != [0, 5]:
            raise LptError(f"--glue: GLUE's {config.task} has numbers from 0 to 5; the adapter's task has others")
    elif set(config.labels) != set(task.answers):
        raise LptError(
            f"--glue: GLUE's {config.task} has the labels {', '.join(task.answers)}; the adapter has "
            f"{', '.join(config.labels)}"
        )
    return task


def read_test_sets(task: GlueTask, given: str, reading: Reading) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield the name of each submission file, and the sentences it labels.

    Args:
        task: one of `GLUE`.
        given: GLUE's folder, or the task's.
        reading: which columns the adapter takes for its first and second text.

    Raises:
        LptError: a missing folder, file or column; an incomplete test set; texts that are not GLUE's.
    """
    wanted = _in_the_adapters_order(task, reading)
    folder = find_folder("--glue", given, task.folder, task.test_sets[0][0])
    for file, rows, submission in task.test_sets:
        path = folder / file
        if not path.is_file():
            raise LptError(f"--glue: {path} does not exist")
        columns = read_file(path)
        missing = [name for name in wanted if name not in columns.names]
        if missing:
            raise LptError(
                f"{path} is not GLUE's test file: it has the columns {', '.join(map(repr, columns.names))} and "
                f"lacks {', '.join(map(repr, missing))}"
            )
        if len(columns.rows) != rows:
            raise LptError(
                f"{path} has {len(columns.rows)} rows, not GLUE's {rows}; its server accepts complete test sets only; "
                "download it again"
            )
        sentences = [columns.texts("--glue", name) for name in wanted]
        yield submission, list(zip(*sentences, strict=True))


def _in_the_adapters_order(task: GlueTask, reading: Reading) -> list[str]:
    """The test files' columns, in the order in which the adapter takes them: its first text may be their second."""
    given = [name for name in (reading.a, reading.b) if name is not None]
    found = [names[0] for name in given for names in task.columns if name in names]
    if len(found) != len(given) or len(set(found)) != len(task.columns):
        theirs = [names[0] for names in task.columns]
        options = " ".join(f"--{option}={name!r}" for option, name in zip("ab", theirs, strict=False))
        raise LptError(
            f"--glue: the adapter was trained on the columns {', '.join(map(repr, given))}, and GLUE's test files of "
            f"{task.folder} have {', '.join(map(repr, theirs))}; say which is its first text and which its second, as "
            f"in {options}"
        )
    return found


def answer(task: GlueTask, prediction: Prediction) -> str:
    """Return a prediction in the server's words."""
    return f"{prediction.value:.3f}" if task.answers is None else task.answers[prediction.label]
