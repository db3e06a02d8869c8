"""What a person sees of a sweep."""

import io
from dataclasses import replace

import pytest
from miniature import DONE, points, shell, sweep
from rich.console import Console
from rich.table import Table

from lpt.sweep import view
from lpt.sweep.ledger import Ledger, Row, Status
from lpt.sweep.so_far import TAIL, tail
from lpt.sweep.view import SweepView, progress


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


def test_a_running_point_shows_its_best_evaluation_so_far_and_the_caption_when_all_will_be_done(tmp_path, monkeypatch):
    monkeypatch.setattr(view.time, "time", lambda: 1030.0)
    (point,) = points(1, **{"task.metrics": ["accuracy", "f1"]})
    (tmp_path / point.name).mkdir()
    running = Row(point, Status.RUNNING, 1, "here", "1", started=1000.0, ended=None, objective=None, error=None)

    def caption(*rows: Row, waiting: int = 0) -> str:
        return view.overview(tmp_path, rows, [Status.RUNNING], view.seconds_left(tmp_path, rows, waiting)).caption

    assert caption(running) == "1 point: 1 running"  # nothing tells yet
    lines = ["step,validation/accuracy,validation/f1", "5,0.75,0.9", "11,0.7,0.9", "14,,"]
    (tmp_path / point.name / "metrics.csv").write_text("\n".join([*lines, ""]))
    (tmp_path / point.name / "train.log").write_text("step 12/45  validation/accuracy 0.7\n")
    table = view.overview(tmp_path, [running], [Status.RUNNING])
    assert [*table.columns[5].cells] == ["0.7500 so far"]
    # 14 of 45 steps in 30 s are 96 s in all.
    assert caption(running) == "1 point: 1 running; about 1:06 left"
    pending = replace(running, status=Status.PENDING, started=None)
    assert caption(running, pending, waiting=1) == "2 points: 1 running, 1 pending; about 2:43 left"
    # Completed ones tell better; those that run take turns.
    completed = replace(running, status=Status.COMPLETED, started=900.0, ended=950.0, objective=0.5)
    assert (
        caption(running, completed, pending, waiting=1)
        == "3 points: 1 completed, 1 running, 1 pending; about 1:10 left"
    )
    assert caption(running, running, completed, waiting=4).endswith("about 2:00 left")
    assert caption(completed) == "1 point: 1 completed"


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
