"""`metrics.csv` in the run folder."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from lpt.files import append_text, write_text
from lpt.metrics_csv import FILE, read_lines


class MetricsFile(Logger):
    """`metrics.csv`, on disk after every line. A resumed run keeps the lines up to the step that it starts from.

    Args:
        run_dir: the run folder.
        first_step: optimizer steps already taken.
    """

    def __init__(self, run_dir: Path, first_step: int):
        super().__init__()
        self._path = run_dir / FILE
        self._columns: list[str] = []  # of the file as this process has written it
        self._earlier = [line for line in read_lines(self._path.parent) if int(line["step"]) < first_step]

    @property
    def name(self) -> str:
        """Its file's."""
        return FILE

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a line; where it has new columns, the whole file."""
        line: dict[str, Any] = {**metrics, "step": step}
        if self._columns and line.keys() <= set(self._columns):
            append_text(self._path, self._text([line]))
        else:
            self._rewrite(line)

    def _rewrite(self, line: dict[str, Any]) -> None:
        """Write the whole file, with one more line; lines are not kept in memory."""
        lines: list[dict[str, Any]] = [*(read_lines(self._path.parent) if self._columns else self._earlier)]
        last = lines[-1] if lines else {}
        if last.keys() == line.keys() and last["step"] == str(line["step"]):  # the run was killed right after it
            lines.pop()
        self._earlier = []
        self._columns = sorted({name for each in (*lines, line) for name in each})
        write_text(self._path, self._text([*lines, line], header=True))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: `.hydra/` has the configuration."""

    def _text(self, lines: list[dict[str, Any]], header: bool = False) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(lines)
        return text.getvalue()
