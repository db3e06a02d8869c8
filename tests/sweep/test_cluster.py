"""Points as jobs, by submitit's executor for this machine."""

import pytest
import slurm
from miniature import DONE, Silent, points, shell

from lpt.sweep import processes
from lpt.sweep.ledger import enter
from lpt.sweep.queue import Queue, sole_launcher

pytest.importorskip("submitit")
from lpt.sweep.cluster import Cluster


def sweep(folder, swept, command, retries=0, view=None, cluster="local", parameters=None):
    with sole_launcher(folder, create=True) as ledger:
        names = enter(ledger, swept)
        place = Cluster(cluster, 2, parameters or {})
        Queue(ledger, command, place, view or Silent(), retries=retries, poll=0.02).run(names)
        return {row.name: row for row in ledger.rows()}


def test_points_run_as_jobs_and_the_ledger_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")  # as in a job, where a point on one node starts its ranks itself
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


@pytest.fixture
def on_slurm(tmp_path, monkeypatch):
    """Works on points of these facts as jobs of a stand-in for Slurm; returns their rows, and the jobs' scripts."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", slurm.install(tmp_path / "bin"))

    def work(command, parameters=None, **facts):
        rows = sweep(tmp_path / "sweep", points(1, **facts), command, 1, cluster="slurm", parameters=parameters)
        scripts = [path.read_text() for path in tmp_path.glob("sweep/.jobs/*/*_submission.sh")]
        return list(rows.values()), scripts

    return work


TWO_NODES = {"trainer.nodes": 2, "trainer.devices": 2, "trainer.accelerator": "auto"}


def test_a_point_on_several_nodes_is_one_job_whose_ranks_srun_starts(on_slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")  # as Slurm would in the job
    tell = 'echo "task $SLURM_PROCID of $SLURM_NTASKS, $SLURM_NTASKS_PER_NODE on each node, $SRUN_CPUS_PER_TASK cores"'
    command = shell(f'{tell}; [ "$SLURM_PROCID" != 0 ] || {DONE}')
    (row,), (script,) = on_slurm(command, {"cpus_per_task": 3}, **TWO_NODES)
    assert row.status == "completed"
    asked = ("nodes=2", "ntasks-per-node=2", "gpus-per-node=2", "cpus-per-task=3")
    assert [f"#SBATCH --{flag}\n" in script for flag in asked] == [True] * 4
    assert "srun" not in script  # of submitit's own
    log = (tmp_path / "sweep" / row.name / "train.log").read_text()
    assert sorted(line for line in log.splitlines() if line.startswith("task")) == [
        f"task {i} of 4, 2 on each node, 3 cores" for i in range(4)
    ]


def test_a_rank_that_fails_ends_the_others_and_its_exit_status_is_the_points(on_slurm):
    (row,), _ = on_slurm(shell('[ "$SLURM_PROCID" != 3 ] || exit 2; sleep 100'), **TWO_NODES)
    assert (row.status, row.attempts, row.error) == ("failed", 1, "ended with exit status 2")
