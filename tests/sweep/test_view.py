"""What a person sees of a sweep."""

import io

import pytest
from miniature import DONE, points, shell, sweep
from rich.console import Console
from rich.table import Table

from lpt.sweep import view
from lpt.sweep.ledger import Ledger
from lpt.sweep.view import TAIL, SweepView, progress, tail


@pytest.fixture
def screen(monkeypatch):
    """What is written, to a terminal or to a file."""

    def make(terminal: bool) -> io.StringIO:
        written = io.StringIO()
        console = Console(file=written, force_terminal=terminal, width=100, highlight=False, color_system=None)
        monkeypatch.setattr(view, "console", console)
        monkeypatch.setattr(view, "say", lambda message: console.print(message, soft_wrap=True, markup=False))
        return written

    return make


def test_a_file_gets_a_line_per_change_and_the_last_lines_of_a_failed_points_log(screen, tmp_path):
    written = screen(terminal=False)
    job = shell(f'case "$1" in *seed-1_*) seq 100; exit 3;; esac; {DONE}')
    one, two = points(2)
    with SweepView(tmp_path, 2) as shown:
        sweep(tmp_path, [one, two], job, view=shown)
    lines = written.getvalue().splitlines()
    assert lines[:4] == [
        f"{one.name}: started",
        f"{one.name}: completed in 0:00, 1.0000 on validation (1 of 2)",
        f"{two.name}: started",
        f"{two.name}: failed: ended with exit status 3",
    ]
    assert lines[4:-1] == [f"    {number}" for number in range(101 - TAIL, 101)]
    assert lines[-1] == f"    full log: {tmp_path / two.name / 'train.log'} (2 of 2)"


def test_a_terminal_gets_a_table_of_what_is_running_with_step_and_time(screen, tmp_path, monkeypatch):
    monkeypatch.setattr(view, "REFRESH", 0.0)
    written = screen(terminal=True)
    job = shell(f'echo "step  3/18  loss 1"; sleep 0.3; {DONE}')
    (point,) = points(1)
    with SweepView(tmp_path, 1) as shown:
        sweep(tmp_path, [point], job, view=shown)
    assert f"{point.name}  running      1  3/18  0:00" in written.getvalue()
    assert "1 point: 1 running" in written.getvalue()
    assert f"{point.name}: completed in 0:00" in written.getvalue()


def test_the_step_is_the_latest_of_metrics_and_log(tmp_path):
    assert progress(tmp_path) == ""
    (tmp_path / "metrics.csv").write_text("epoch,lr,step\n0,1e-3,0\n0,1e-3,7\n")
    assert progress(tmp_path) == "7"
    (tmp_path / "train.log").write_text("step  6/18  train/loss 1.4\n")
    assert progress(tmp_path) == "7/18"
    (tmp_path / "metrics.csv").write_text("epoch,lr,step\n0,1e-3,")
    assert progress(tmp_path) == "6/18"


def test_only_the_end_of_a_large_log_is_read(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("\n".join(map(str, range(100_000))))
    assert tail(log) == [str(number) for number in range(100_000 - TAIL, 100_000)]
    assert tail(tmp_path / "none") == []


def test_the_table_shows_the_ledger(tmp_path):
    sweep(tmp_path, points(1), shell("kill -9 $$"))
    table = view.overview(tmp_path, Ledger(tmp_path).rows(), ["failed"])
    assert str(next(iter(table.columns[-1].cells))) == "killed by SIGKILL"
    assert view.overview(tmp_path, Ledger(tmp_path).rows(), ["running"]).row_count == 0


def test_a_table_is_never_cut_off(screen, tmp_path):
    written = screen(terminal=False)
    table = Table()
    table.add_column("x", no_wrap=True)
    table.add_row("long" * 100)
    view.show_all(table)
    assert "long" * 100 in written.getvalue()
