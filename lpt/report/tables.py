"""Tables of a report, the same for page and Markdown: numbers as people read them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lpt.report.commands import split_overrides
from lpt.report.comparison import Difference
from lpt.report.gaps import Gap
from lpt.report.mixtures import commit_of, hardware_of
from lpt.report.runs import Predictions, Run
from lpt.report.standings import Standing, Standings, difference_between
from lpt.report.study import Study

NONE = "–"


@dataclass
class Table:
    """Headings and rows of text.

    Attributes:
        words: how many of the first columns hold words; the others hold numbers.
        strong: rows to print in bold.
        quiet: rows to print in gray.
        marks: (row, column) -> what kind of cell it is, and what there is to know about it.
    """

    headings: list[str]
    rows: list[list[str]]
    words: int = 1
    strong: set[int] = field(default_factory=set)
    quiet: set[int] = field(default_factory=set)
    marks: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    def markdown(self) -> str:
        marks = ["---"] * self.words + ["---:"] * (len(self.headings) - self.words)
        rows = [
            [f"**{cell}**" if i in self.strong and j < self.words + 1 else cell for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        lines = [self.headings, marks, *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def standings_table(standings: Standings) -> Table:
    """A row per configuration: its scores, and how sure they are."""
    metric, rows = standings.metric, standings.rows
    others = _other_scores(rows, metric)
    compared = any(row.difference for row in rows)
    to = "to the baseline" if standings.baseline else "to the best"
    headings = ["configuration", f"{metric} ± sd", "95% interval", *([to, "adjusted p"] if compared else [])]
    headings += ["seeds", f"validation {metric}", *(_heading(split, name) for split, name in others)]
    table = _with_rows(headings, standings)
    seeds = len({seed for row in rows for seed in row.configuration.seeds})
    for row, cells in zip(rows, table.rows, strict=True):
        c = row.configuration
        cells[0] += " ≈" if row.tied and row is not standings.best else ""
        cells += [_mean_sd(row), _span(row.interval)]
        cells += [_points(row.difference), _p(row.difference)] if compared else []
        cells.append(f"{len(row.scores)}" + (f" of {seeds}" if len(row.scores) < seeds else ""))
        wanted = [("validation", metric), *others]
        cells += [_number(c.mean("metrics", split, name), "{:.3f}") for split, name in wanted]
    return table


def costs_table(standings: Standings) -> Table:
    """A row per configuration: what it trains, and what that takes; means over seeds."""
    headings = ["configuration", standings.metric, "trained parameters", "ms per step", "tokens/s", "peak GB", "wall s"]
    table = _with_rows(headings, standings)
    for row, cells in zip(standings.rows, table.rows, strict=True):
        c = row.configuration
        steps, memory = c.mean("train", "steps_per_second"), c.mean("train", "peak_memory_bytes")
        cells += [
            _number(row.mean, "{:.3f}"),
            _number(c.mean("trainable_parameters"), "{:,.0f}"),
            _number(1000 / steps if steps else None, "{:,.0f}" if steps and steps < 20 else "{:.1f}"),
            _number(c.mean("train", "tokens_per_second") or None, "{:,.0f}"),
            _number(memory and memory / 1e9, "{:.2f}"),
            _number(c.mean("wall_seconds"), "{:,.0f}"),
        ]
    return table


def _with_rows(headings: list[str], standings: Standings) -> Table:
    """A row for each configuration, with its name alone."""
    strong = {i for i, row in enumerate(standings.rows) if row is standings.best and len(standings.rows) > 1}
    quiet = {i for i, row in enumerate(standings.rows) if not row.scores}
    return Table(headings, [[row.label] for row in standings.rows], strong=strong, quiet=quiet)


def pairs_table(standings: Standings) -> Table:
    """Differences of every two configurations, in points: row minus column, `*` where it is more than chance."""
    labels = [row.label for row in standings.rows if any(row.label in pair for pair in standings.pairs)]
    table = Table(["", *(str(i + 1) for i in range(len(labels)))], [])
    for i, label in enumerate(labels):
        row = [f"{i + 1} {label}"]
        for j, other in enumerate(labels):
            difference = difference_between(standings, other, label)
            row.append("" if difference is None else f"{_signed(difference.value)}{'*' if difference.sure else ''}")
            if difference is not None:
                kind = "unsure" if not difference.sure else "better" if difference.value > 0 else "worse"
                what = f"{label} minus {other}: {_points(difference)}, adjusted p {_p(difference)} ({difference.test})"
                table.marks[i, j + 1] = (kind, what)
        table.rows.append(row)
    return table


def gaps_table(gaps: Sequence[Gap]) -> Table:
    columns = ["task", "backbone", "configuration", "seed", "what", "error"]
    rows = [[gap.task, gap.backbone, gap.label, gap.seed, gap.what, gap.error or ""] for gap in gaps]
    return Table(columns, rows, words=len(columns))


def run_table(run: Run) -> Table:
    """Scores of one run on each split, and what it cost."""
    rows = []
    for split, metrics in run.result.get("metrics", {}).items():
        for name, value in metrics.items():
            interval = run.result.get("intervals", {}).get(split, {}).get(name)
            rows.append(
                [split, name, f"{value:.3f}", NONE if interval is None else "{:.3f} to {:.3f}".format(*interval)]
            )
    return Table(["split", "metric", "value", "95% interval"], rows, words=2)


def confusion_table(found: Predictions) -> Table:
    """Rows of each gold class by the class that was predicted."""
    assert found.labels is not None
    counts = Counter(zip(found.gold.tolist(), found.predicted.tolist(), strict=True))
    classes = range(len(found.labels))
    rows = []
    for gold in classes:
        cells = [counts[gold, predicted] for predicted in classes]
        recall = cells[gold] / sum(cells) if sum(cells) else 0.0
        rows.append([found.labels[gold], *(f"{n:,}" for n in cells), f"{recall:.3f}"])
    return Table(["gold \\ predicted", *found.labels, "recall"], rows)


def mistakes_table(found: Predictions, most: int = 12) -> Table:
    """The wrong answers that were given with the highest probability; of a regression, those furthest off."""
    if found.labels is None:
        order = sorted(range(len(found.gold)), key=lambda i: -abs(found.predicted[i] - found.gold[i]))[:most]
        rows = [[str(found.index[i]), f"{found.gold[i]:.2f}", f"{found.predicted[i]:.2f}"] for i in order]
        return Table(["row of the source", "gold", "predicted"], rows)
    wrong = [i for i in range(len(found.gold)) if found.predicted[i] != found.gold[i]]
    wrong.sort(key=lambda i: -found.confidence[i])
    names = found.labels
    rows = [
        [str(found.index[i]), names[found.gold[i]], names[found.predicted[i]], f"{found.confidence[i]:.3f}"]
        for i in wrong[:most]
    ]
    return Table(["row of the source", "gold", "predicted", "probability"], rows, words=3)


def facts_table(study: Study) -> Table:
    """What the runs have in common, or the several values where they differ."""
    facts: dict[str, dict[str, None]] = defaultdict(dict)
    for run in study.completed:
        data, few = run.result.get("data", {}), run.result.get("fewshot", {})
        sizes = ", ".join(f"{size:,} {split}" for split, size in data.get("sizes", {}).items())
        facts["method"][_method(run)] = None
        facts[f"rows of {run.task}"][f"{sizes}; test set {run.test_set}"] = None
        facts["draw"]["fewshot={}, k={}".format(few.get("protocol"), few.get("k"))] = None
        facts["backbone"][f"{run.backbone}, {run.result.get('backbone_parameters', 0):,} parameters"] = None
        facts["number format"][str(run.result.get("precision", NONE))] = None
        facts["attention"][str(run.result.get("attention", NONE))] = None
        facts["trunk cache"][str(run.result.get("cache", {}).get("mode", NONE))] = None
        facts["hardware"][hardware_of(run)] = None
        facts["code"][commit_of(run)] = None
        for package, version in run.result.get("versions", {}).items():
            facts["versions"][f"{package} {version}"] = None
    shared, varying = split_overrides(study.runs)
    facts["the command lines share"] = dict.fromkeys([" ".join(shared) or "nothing"])
    if varying:
        facts["and vary"] = {
            f"{name}={', '.join(value or '(not given)' for value in v)}": None for name, v in varying.items()
        }
    return Table(["", ""], [[name, "; ".join(values)] for name, values in facts.items()], words=2)


def _method(run: Run) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in run.result.get("settings", {}).items())
    return f"{run.options['method.name']} ({settings})" if settings else str(run.options["method.name"])


def _other_scores(rows: Sequence[Standing], metric: str) -> list[tuple[str, str]]:
    """(split, metric) besides the primary metric of the test rows."""
    found: dict[tuple[str, str], None] = {}
    for row in rows:
        for run in row.configuration.runs:
            for split, values in run.result.get("metrics", {}).items():
                if split != "validation":
                    found |= {(split, name): None for name in values if name != "loss"}
    return [key for key in found if key != ("test", metric)]


def _heading(split: str, name: str) -> str:
    return name if split == "test" else f"{split.removeprefix('test_')} {name}"


def _number(value: Any, form: str) -> str:
    return NONE if value is None else form.format(value)


def _mean_sd(row: Standing) -> str:
    if row.mean is None:
        return row.without_score
    return f"{row.mean:.3f}" + ("" if row.sd is None else f" ± {row.sd:.3f}")


def _span(interval: Sequence[float] | None) -> str:
    return NONE if interval is None else "{:.3f} to {:.3f}".format(*interval)


def _points(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    return f"{_signed(difference.value)} ({_signed(difference.low)} to {_signed(difference.high)})"


def _signed(value: float) -> str:
    """In points, hundredths of the metric."""
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def _p(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    return "<0.001" if difference.adjusted < 0.001 else f"{difference.adjusted:.3f}"
