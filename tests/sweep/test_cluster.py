"""Points as jobs, by submitit's executor for this machine."""

import pytest
from miniature import DONE, Silent, points, shell

from lpt.sweep import processes
from lpt.sweep.ledger import enter
from lpt.sweep.queue import Queue, sole_launcher

pytest.importorskip("submitit")
from lpt.sweep.cluster import Cluster


def sweep(folder, swept, command, retries=0, view=None):
    with sole_launcher(folder, create=True) as ledger:
        names = enter(ledger, swept)
        Queue(ledger, command, Cluster("local", 2, {}), view or Silent(), retries=retries, poll=0.02).run(names)
        return {row.name: row for row in ledger.rows()}


def test_points_run_as_jobs_and_the_ledger_is_the_same(tmp_path):
    view = Silent()
    job = shell(f'echo "ntasks $SLURM_NTASKS"; case "$1" in *seed-1_*) exit 3;; esac; {DONE}')
    rows = sweep(tmp_path / "a sweep", points(3), job, retries=1, view=view)
    assert [(row.status, row.attempts) for row in rows.values()] == [("completed", 1), ("failed", 2), ("completed", 1)]
    one, failed, _ = rows.values()
    assert failed.error == "ended with exit status 3"
    assert view.names("failed, again") == [failed.name]
    assert "ntasks \n" in (tmp_path / "a sweep" / one.name / "train.log").read_text()
    again = Silent()
    assert sweep(tmp_path / "a sweep", points(3), job, view=again) == rows
    assert again.told == []


def test_a_job_leaves_no_process_behind(tmp_path):
    (row,) = sweep(tmp_path, points(1), shell(f"sleep 1000 & {DONE}")).values()
    assert row.status == "completed"
    assert processes.find(tmp_path / row.name) == []
