"""A cluster as the place where points are worked on: each is a job of its own, submitted by submitit."""

import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from lpt.sweep import processes
from lpt.sweep.points import Point

# Lightning would take these for ranks that srun has started; a point starts its own.
SRUN = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE")


class ClusterWork:
    """A point that is a job of the cluster."""

    def __init__(self, job: submitit.Job):
        self._job = job
        self.job = job.job_id
        self.exit_status: int | None = None

    def ended(self) -> bool:
        if not self._job.done():
            return False
        if self._job.exception() is None:
            self.exit_status = self._job.result()
        return True

    def interrupt(self) -> None:
        self._job.cancel()

    def clear(self) -> None:
        if not self._job.done():
            self._job.cancel()
            self._job.wait()


class Cluster:
    """Submits points as jobs.

    Args:
        cluster: `slurm`, or `local` for trying it out without one.
        workers: jobs submitted at a time; None: all, as the cluster has a queue of its own.
        parameters: of submitit's executor, such as `slurm_partition` and `timeout_min`.
    """

    def __init__(self, cluster: str, workers: int | None, parameters: Mapping[str, Any]):
        self.name = cluster
        self.workers = workers or math.inf
        self._parameters = parameters

    def start(self, point: Point, argv: Sequence[str], cwd: Path, folder: Path, log: Path) -> ClusterWork:
        """Submit `argv` as the job of a point, with its output appended to `log`."""
        executor = submitit.AutoExecutor(folder=self._jobs(folder), cluster=self.name)
        gpus = {} if point.facts.get("trainer.accelerator") == "cpu" else {"gpus_per_node": point.devices}
        parameters: dict[str, Any] = {"name": point.name, "timeout_min": 24 * 60, **gpus, **self._parameters}
        executor.update_parameters(**parameters)
        return ClusterWork(executor.submit(run, list(argv), str(cwd), str(folder), str(log)))

    def find(self, folder: Path, job: str | None) -> ClusterWork | None:
        """The job that an earlier launcher has submitted for a point, unless it has ended."""
        if job is None or self.name != "slurm":
            return None
        work = ClusterWork(submitit.SlurmJob(folder=self._jobs(folder), job_id=job))
        return None if work.ended() else work

    def _jobs(self, folder: Path) -> Path:
        return folder.parent / ".jobs" / folder.name  # beside the run folder, which a new attempt empties


def run(argv: Sequence[str], cwd: str, folder: str, log: str) -> int:
    """On the node of a job: work on the point, and leave no process of it behind; returns its exit status."""
    environment = {name: value for name, value in os.environ.items() if name not in SRUN}
    environment |= {processes.MARK: folder, "PYTHONUNBUFFERED": "1"}
    try:
        with open(log, "ab") as file:
            return subprocess.run(
                argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            ).returncode
    finally:
        processes.kill(Path(folder))
