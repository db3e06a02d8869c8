"""Everything that is wrong with a task's definition, found before any data is read."""

import math
import re
from collections.abc import Iterator
from typing import Any

from lpt.data.tasks import SOURCES, SPLITS, Source, Task
from lpt.data.templates import template_fields
from lpt.errors import LptError
from lpt.metrics import CLASS_METRICS, METRICS, NUMBER_METRICS


def describe_problems(task: Task) -> list[str]:
    """List everything wrong with a task's definition, one complaint each; not of values outside their declared range.

    Args:
        task: the task; nothing of it is read from disk.
    """
    return [
        *_label_problems(task),
        *_metric_problems(task),
        *_source_problems(task),
        *_regression_problems(task),
    ]


def _label_problems(task: Task) -> Iterator[str]:
    if len(task.labels) < 2:
        yield f"task.labels={task.labels} is too short: name at least two classes, as in [negative,positive]"
    if len(set(task.labels)) < len(task.labels):
        yield f"task.labels={task.labels} names a class twice; remove one, or give it another name"
    mappings = [("task.label_words", task.label_words)]
    mappings += [(f"task.{source}.values", getattr(task, source).values) for source in SOURCES]
    for option, mapping in mappings:
        if mapping is not None and not isinstance(mapping, dict):
            yield f"{option}={mapping} must be a mapping, as in {{a: b, c: d}}"
    for name in task.label_words if isinstance(task.label_words, dict) else ():
        if name not in task.labels:
            yield f"task.label_words has {name!r}, which is not one of task.labels={task.labels}; correct one of them"


def _metric_problems(task: Task) -> Iterator[str]:
    fitting = list(CLASS_METRICS if task.value_range is None else NUMBER_METRICS)
    for name in task.metrics:
        if name not in METRICS:
            yield f"task.metrics has {name!r}, which is not known; choose from {', '.join(fitting)}"
        elif name not in fitting:
            kind = "classification" if task.value_range is None else f"regression (task.value_range={task.value_range})"
            yield f"task.metrics has {name!r}, which does not suit a {kind}; choose from {', '.join(fitting)}"
    if not task.metrics:
        yield f"task.metrics is empty; choose from {', '.join(fitting)}"
    if "f1" in task.metrics and task.value_range is None and len(task.labels) != 2:
        others = ", ".join(name for name in fitting if name != "f1")
        yield (
            f"task.metrics has 'f1', which needs two classes; task.labels has {len(task.labels)}; choose from {others}"
        )


def _source_problems(task: Task) -> Iterator[str]:
    if task.source not in SOURCES:
        yield f"task.source={task.source!r} is not known; choose one of {', '.join(SOURCES)}"
        return
    source: Source = getattr(task, task.source)
    if source.train is None:
        yield f"task.{task.source}.train is not set; name the training split or file"
    yield from _extra_test_problems(f"task.{task.source}.extra_tests", source.extra_tests)
    yield from _sentence_problems(task, source)
    if task.source == "hub" and task.hub.path is None:
        yield f"task.hub.path is not set: task {task.name} has no hub source; use another task.source"
    if task.source == "tsv" and task.data_dir is None:
        yield "task.source=tsv needs task.data_dir=<folder with one folder per task>"


def _extra_test_problems(option: str, extra_tests: Any) -> Iterator[str]:
    if extra_tests is not None and not isinstance(extra_tests, dict):
        yield f"{option}={extra_tests} must be a mapping, as in {{test_other: other.tsv}}"
        return
    taken = (*SPLITS, "validation")
    for name in extra_tests or ():
        if name in taken or not re.fullmatch(r"[\w-]+", name):
            yield (
                f"{option} has the name {name!r}; use letters, digits, _ and -, and none of the names "
                f"{', '.join(taken)}"
            )


def _sentence_problems(task: Task, source: Source) -> Iterator[str]:
    """The source must have a column for every sentence that the templates show, and for no other."""
    shows_b = []
    for option, template in (("encoder", task.template.encoder), ("decoder", task.template.decoder)):
        try:
            shows_b.append("b" in template_fields(template))
        except LptError as error:
            yield str(error)
            continue
        if shows_b[-1] and source.b is None:
            yield (
                f"task.template.{option}={template!r} has {{b}}, but task.{task.source}.b names no column for it; "
                f"set task.{task.source}.b=<column>, or remove {{b}}"
            )
    if shows_b and source.b is not None and not any(shows_b):
        yield (
            f"task.{task.source}.b={source.b!r} has no use: task.template.encoder and task.template.decoder have "
            f"no {{b}}; add it, or set task.{task.source}.b=null"
        )


def _regression_problems(task: Task) -> Iterator[str]:
    if task.value_range is None:
        return
    ends = task.value_range
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or ends[0] >= ends[-1]:
        yield f"task.value_range={ends} must be two numbers, the lower one first, as in [0,5]"
    if len(task.labels) > 2:
        yield f"task.value_range={ends} needs two labels, one for each end; task.labels has {len(task.labels)}"
    if task.source not in SOURCES:
        return
    source: Source = getattr(task, task.source)
    if source.values:
        yield (
            f"task.{task.source}.values is for classes, but task.value_range={ends} makes this a regression; "
            f"set task.{task.source}.values=null"
        )
    if source.balance:
        yield (
            f"task.{task.source}.balance=true is for classes, but task.value_range={ends} makes this a regression; "
            f"set task.{task.source}.balance=false"
        )
