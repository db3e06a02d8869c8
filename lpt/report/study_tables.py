"""Tables of a whole report: what is missing, and how everything was run."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from lpt.report.cautions import commit_of, hardware_of
from lpt.report.gaps import Gap
from lpt.report.reproduce import split_overrides
from lpt.report.study import Study
from lpt.report.text_table import TextTable
from lpt.training.result import CompletedRun


def gaps_table(gaps: Sequence[Gap]) -> TextTable:
    """List what is missing, one row per gap."""
    columns = ["task", "backbone", "configuration", "seed", "what", "error"]
    rows = [[gap.task, gap.backbone, gap.label, gap.seed, gap.what, gap.error or ""] for gap in gaps]
    return TextTable(columns, rows, words=len(columns))


def facts_table(study: Study) -> TextTable:
    """List what the runs have in common, or the several values where they differ."""
    facts: dict[str, dict[str, None]] = defaultdict(dict)
    for run in study.completed:
        if run.result is not None:
            for name, value in _facts(run.result):
                facts[name][value] = None
    shared, varying = split_overrides(study.runs)
    facts["the command lines share"] = dict.fromkeys([" ".join(shared) or "nothing"])
    if varying:
        facts["and vary"] = {
            f"{name}={', '.join(value or '(not given)' for value in values)}": None for name, values in varying.items()
        }
    return TextTable(["", ""], [[name, "; ".join(values)] for name, values in facts.items()], words=2)


def _facts(result: CompletedRun) -> Iterator[tuple[str, str]]:
    settings = ", ".join(f"{name}={value}" for name, value in result.settings.items())
    sizes = ", ".join(f"{size:,} {split}" for split, size in result.data.sizes.items())
    yield "method", f"{result.method} ({settings})" if settings else result.method
    test = result.data.fingerprint.get("test")
    yield f"rows of {result.task}", f"{sizes}; test set {test}" if test else sizes
    yield "few-shot sample", f"fewshot={result.fewshot.protocol}, k={result.fewshot.k}"
    yield "backbone", f"{result.backbone}, {result.backbone_parameters:,} parameters"
    yield "number format", result.precision
    yield "attention", result.attention
    yield "trunk cache", result.cache.mode
    yield "hardware", hardware_of(result)
    yield "code", commit_of(result)
    for package, version in result.versions.items():
        yield "versions", f"{package} {version}"
