"""Points as jobs: by submitit's executor for this machine, and of a stand-in for Slurm."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import miniature
import pytest
import slurm
from miniature import DONE, Silent, points, shell, until

from lpt.sweep import processes
from lpt.sweep.ledger import enter
from lpt.sweep.queue import Queue, sole_launcher

pytest.importorskip("submitit")
from lpt.sweep.cluster import Cluster


def sweep(folder, swept, command, retries=0, view=None, cluster="local", parameters=None, **options):
    with sole_launcher(folder, create=True) as ledger:
        names = enter(ledger, swept)
        place = Cluster(cluster, 2, parameters or {})
        Queue(ledger, command, place, view or Silent(), retries=retries, poll=0.02, **options).run(names)
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
def commands(tmp_path, monkeypatch):
    """Where the commands of a stand-in for Slurm are; no job outlives the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", slurm.install(folder))
    yield folder
    jobs = folder / "jobs"
    for job in jobs.read_text().split() if jobs.exists() else []:
        subprocess.run(["bash", "-c", slurm.SCANCEL, "scancel", job], check=True)


@pytest.fixture
def on_slurm(tmp_path, commands):
    """Works on points of these facts as jobs of Slurm; returns their rows, and the jobs' scripts."""

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


# Notes that it was started, and waits for a word to go on.
WAITS = shell(f'echo >> "$1".starts; while [ ! -e "$1".go ]; do sleep 0.02; done; {DONE}')
KILLED = """
import os, signal, sys
from pathlib import Path
from miniature import points
from submitit.core.utils import JobPaths
from test_cluster import WAITS, sweep
from lpt.sweep.ledger import Ledger

def die(*arguments, **options):
    if when == "told": has_job(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

folder, cluster, when = sys.argv[1:]
has_job = Ledger.has_job
setattr(*((JobPaths, "move_temporary_file") if when == "submitted" else (Ledger, "has_job")), die)
sweep(Path(folder), points(1), WAITS, cluster=cluster)
"""


def kill_a_launcher(folder: Path, cluster: str, when: str) -> None:
    """Have a launcher killed when its job is `submitted`, `named`, or also `told` to the ledger."""
    paths = [str(path) for path in list(Path(miniature.__file__).parents)[:3]]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), cluster, when],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == -signal.SIGKILL


def starts(folder: Path) -> int:
    return sum(path.read_text().count("\n") for path in folder.glob("*.starts"))


class Resumed(Silent):
    """Once the launcher has said what it found, the job may go on."""

    def __init__(self, folder: Path, *held: Path):
        super().__init__()
        self._folder = folder
        self._held = held

    def say(self, message: str) -> None:
        super().say(message)
        for path in self._held:
            path.unlink(missing_ok=True)
        for point in points(1):
            (self._folder / f"{point.name}.go").touch()


@pytest.mark.parametrize(
    ("cluster", "when", "at_work"),
    [("local", "told", True), ("local", "named", False), ("slurm", "told", True), ("slurm", "named", False)],
)
def test_a_job_that_a_killed_launcher_left_is_waited_for_and_not_started_twice(
    commands, tmp_path, cluster, when, at_work
):
    """Also one that is still queued, or starting, and that the ledger was not told of."""
    folder, full = tmp_path / "sweep", commands / "full"
    if not at_work:
        full.touch()
    kill_a_launcher(folder, cluster, when)
    if at_work:
        until(lambda: starts(folder))
    view = Resumed(folder, full)
    (row,) = sweep(folder, points(1), WAITS, cluster=cluster, view=view).values()
    assert (row.status, row.attempts, starts(folder)) == ("completed", 1, 1)
    assert ["still running" in message for _, message in view.told] == [True, False]
    assert view.names("started") == []


def test_a_job_counts_as_running_while_slurm_cannot_be_asked(commands, tmp_path):
    folder, full = tmp_path / "sweep", commands / "full"
    full.touch()
    kill_a_launcher(folder, "slurm", "told")
    slurm.replace(commands, "sacct", "exit 1")
    (row,) = sweep(folder, points(1), WAITS, cluster="slurm", view=Resumed(folder, full)).values()
    assert (row.status, row.attempts, starts(folder)) == ("completed", 1, 1)


def test_a_job_whose_launcher_was_killed_as_it_submitted_it_does_nothing(commands, tmp_path):
    """The point is submitted again, and only that job ever works on it."""
    folder = tmp_path / "sweep"
    kill_a_launcher(folder, "slurm", "submitted")
    (row,) = sweep(folder, points(1), WAITS, cluster="slurm", view=Resumed(folder)).values()
    assert (row.status, row.attempts, starts(folder)) == ("completed", 2, 1)
    assert len((commands / "jobs").read_text().split()) == 2


def test_a_job_that_may_come_back_is_canceled_before_its_point_is_submitted_again(commands, tmp_path, monkeypatch):
    """submitit takes it for ended, but it is suspended."""
    monkeypatch.setattr("submitit.SlurmJob._results_timeout_s", 0)
    folder, full = tmp_path / "sweep", commands / "full"
    kill_a_launcher(folder, "slurm", "told")
    until(lambda: starts(folder))
    full.touch()
    slurm.replace(commands, "sacct", slurm.SACCT.replace("RUNNING", "SUSPENDED"))

    class Looks(Silent):
        def started(self, row):
            until(lambda: not processes.find(folder / row.name))
            slurm.replace(commands, "sacct", slurm.SACCT)
            full.unlink()

    (row,) = sweep(folder, points(1), shell(DONE), cluster="slurm", view=Looks()).values()
    assert (row.status, row.attempts) == ("completed", 2)


def test_jobs_that_cannot_be_canceled_are_found_again(commands, tmp_path, monkeypatch):
    """scancel fails, and then it is not even there."""
    folder, full = tmp_path / "sweep", commands / "full"
    full.touch()
    slurm.replace(commands, "scancel", 'rm "$0"; exit 1')
    monkeypatch.setattr(processes, "LAST_WAIT", 0.1)

    class Interrupts(Silent):
        def started(self, row):
            os.kill(os.getpid(), signal.SIGINT)

    view = Interrupts()
    with pytest.raises(KeyboardInterrupt):
        sweep(folder, points(1), WAITS, cluster="slurm", view=view, grace_period=0)
    (job,) = (commands / "jobs").read_text().split()
    assert f"job {job} cannot be ended" in view.told[-1][1]
    (row,) = sweep(folder, points(1), WAITS, cluster="slurm", view=Resumed(folder, full)).values()
    assert (row.status, row.attempts, starts(folder)) == ("completed", 1, 1)
