"""A cluster as the place where points run: each point is a job of its own, submitted by submitit."""

import math
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import environment_variables

from lpt.errors import LptError
from lpt.ranks import starting_its_own
from lpt.sweep import processes
from lpt.sweep.local import LocalMachine, LocalWork
from lpt.sweep.points import Point

SLURM = "slurm"


class ClusterWork:
    """A point that is a job of the cluster.

    Args:
        job: as submitit has it.
    """

    def __init__(self, job: submitit.Job[int]):
        self._job = job
        self.job = job.job_id
        self.exit_status: int | None = None

    def ended(self) -> bool:
        """Whether the job has ended, as far as the cluster says."""
        if not self._job.done():
            return False
        if self._job.exception() is None:
            self.exit_status = self._job.result()
        return True

    def interrupt(self) -> None:
        """Cancel the job."""
        with suppress(OSError):  # no scancel here
            self._job.cancel(check=False)

    def clear(self) -> None:
        """Cancel the job, unless it has ended by itself, and wait until it is gone.

        Raises:
            LptError: it is not gone after `processes.LAST_WAIT` seconds.
        """
        if self.exit_status is not None:
            return
        deadline = time.monotonic() + processes.LAST_WAIT
        self.interrupt()  # whatever its state: for submitit a suspended job, or one to be requeued, has ended
        while not self._job.done(force_check=True):
            if time.monotonic() > deadline:
                raise LptError(f"job {self.job} cannot be ended, or its state is unknown; try scancel {self.job}")
            time.sleep(0.5)


class Cluster:
    """Submits points as jobs.

    Args:
        cluster: `slurm`, or `local` for trying it out without one.
        workers: jobs submitted at a time; None: all, as the cluster has a queue of its own.
        parameters: the parameters of submitit's executor, such as `slurm_partition` and `timeout_min`.
    """

    def __init__(self, cluster: str, workers: int | None, parameters: Mapping[str, Any]):
        self.name = cluster if cluster == SLURM else socket.gethostname()
        self.workers = workers or math.inf
        self._cluster = cluster
        self._parameters = parameters

    def start(self, point: Point, argv: Sequence[str], cwd: Path, folder: Path, log: Path) -> ClusterWork:
        """Submit `argv` as the job of a point, with its output appended to `log`."""
        executor = submitit.AutoExecutor(folder=self._jobs(folder), cluster=self._cluster)
        parameters: dict[str, Any] = {"name": point.name, "timeout_min": 24 * 60}
        if point.facts.get("trainer.accelerator") != "cpu":
            parameters["gpus_per_node"] = point.devices
        srun: list[str] = []
        if point.nodes > 1:
            # The job is then a script on its first node, for which srun starts a rank as each task of the job.
            parameters |= {"nodes": point.nodes, "tasks_per_node": point.devices, "slurm_use_srun": False}
            # A rank that fails ends the others, which would wait for it.
            srun = ["srun", f"--nodes={point.nodes}", f"--ntasks-per-node={point.devices}", "--kill-on-bad-exit=1"]
        executor.update_parameters(**{**parameters, **self._parameters})
        # On this machine the whole job has the mark. Slurm's has not, or `run` would kill srun on the first node.
        mark = {} if self._cluster == SLURM else {processes.MARK: str(folder)}
        with environment_variables(**mark):
            job = executor.submit(run, list(argv), str(cwd), str(folder), str(log), srun)
        return ClusterWork(job.task(0))  # the script

    def find(self, folder: Path, job: str | None) -> ClusterWork | LocalWork | None:
        """The job that an earlier launcher has submitted for a point, until Slurm says that it has ended."""
        if self._cluster != SLURM:
            return LocalMachine().find(folder, job)
        job = job or self._last_submitted(folder)
        if job is None:
            return None
        work = ClusterWork(submitit.SlurmJob(folder=self._jobs(folder), job_id=job))
        if not work.ended():
            return work
        work.clear()
        return None

    def _last_submitted(self, folder: Path) -> str | None:
        """The last job of a point, by the file that it works from.

        submitit names this file after the job once the job is submitted. The job waits for the file, and does nothing
        if its launcher was killed in between.
        """
        ending = "_submitted.pkl"
        files = self._jobs(folder).glob(f"*{ending}")
        last = max(files, key=lambda path: path.stat().st_mtime, default=None)
        return None if last is None else last.name.removesuffix(ending)

    def _jobs(self, folder: Path) -> Path:
        return folder.parent / ".jobs" / folder.name  # beside the run folder, which a new attempt empties


def run(argv: Sequence[str], cwd: str, folder: str, log: str, srun: Sequence[str] = ()) -> int:
    """Work on a point, on the first node of its job, and leave no process of it there; returns its exit status.

    Args:
        argv: the command.
        cwd: its working directory.
        folder: the point's folder.
        log: the file to append its output to.
        srun: the command that starts the point's processes, unless the point starts them itself.
    """
    environment = dict(os.environ) if srun else starting_its_own(os.environ)
    if srun and "SLURM_CPUS_PER_TASK" in environment:
        environment.setdefault("SRUN_CPUS_PER_TASK", environment["SLURM_CPUS_PER_TASK"])  # srun does not inherit it
    environment |= {processes.MARK: folder, "PYTHONUNBUFFERED": "1"}
    try:
        with open(log, "ab") as file:
            command = [*srun, *argv]
            return subprocess.run(
                command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            ).returncode
    finally:
        processes.kill(Path(folder))
