"""This machine as the place where points run: each point has its own GPUs, or its share of the CPU's cores."""

import os
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from lpt.ranks import starting_its_own
from lpt.sweep import processes
from lpt.sweep.points import Point


class LocalWork:
    """A point that runs on this machine; its process need not be a child of this one.

    Args:
        folder: the point's folder.
        process: its first process.
        units: the GPUs or cores that it uses.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes] | psutil.Process, units: Sequence[str]):
        self._folder = folder
        self._process = process
        self.job = str(process.pid)
        self.units = units
        self.exit_status: int | None = None

    def ended(self) -> bool:
        """Whether the first process has ended."""
        if isinstance(self._process, subprocess.Popen):
            self.exit_status = self._process.poll()
            return self.exit_status is not None
        try:
            return bool(self._process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def interrupt(self) -> None:
        """Ask all processes of the point to end, as Ctrl-C does."""
        processes.interrupt(processes.find(self._folder))

    def clear(self) -> None:
        """Kill what is left of the point."""
        if not self.ended():  # its mark cannot be seen in the instant in which it starts
            self._process.kill()
        processes.kill(self._folder)


class LocalMachine:
    """Starts points here, each pinned to what is least in use.

    Args:
        workers: points at a time; None: as many as there are GPUs for, and one on a CPU.
        devices: the largest number of devices that any point asks for.
    """

    def __init__(self, workers: int | None = None, devices: int = 1):
        self.name = socket.gethostname()
        self._gpus = gpus()
        self._cores = [str(core) for core in _affinity()]
        self.workers = workers or max(1, len(self._gpus) // devices)
        self._running: list[LocalWork] = []

    def start(self, point: Point, argv: Sequence[str], cwd: Path, folder: Path, log: Path) -> LocalWork:
        """Start `argv` as the process of a point, with its output appended to `log`."""
        on_gpus = bool(self._gpus) and point.facts.get("trainer.accelerator") != "cpu"
        count = point.devices if on_gpus else max(1, len(self._cores) // self.workers)
        units = self._least_used(self._gpus if on_gpus else self._cores, count)
        environment = {**starting_its_own(os.environ), processes.MARK: str(folder), "PYTHONUNBUFFERED": "1"}
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(units) if on_gpus else ""
        if not on_gpus and self.workers > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, count // point.devices)))
        with log.open("ab") as file, _only_on(self._cores if on_gpus else units):
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on
            )
        return self._track(LocalWork(folder, process, units))

    def find(self, folder: Path, job: str | None) -> LocalWork | None:
        """The work that an earlier launcher has started for a point, if it still runs; else kill what is left of it."""
        found = processes.find(folder)
        leader = [process for process in found if job in (None, str(process.pid))]
        if not leader:
            processes.kill(folder)  # ranks whose first process is gone would wait forever
            return None
        try:
            visible = leader[0].environ().get("CUDA_VISIBLE_DEVICES", "")
        except psutil.Error:
            return None
        units = visible.split(",") if visible else [str(core) for core in _affinity(leader[0])]
        return self._track(LocalWork(folder, leader[0], units))

    def _track(self, work: LocalWork) -> LocalWork:
        self._running.append(work)
        return work

    def _least_used(self, units: Sequence[str], count: int) -> list[str]:
        self._running = [work for work in self._running if not work.ended()]
        used = Counter(unit for work in self._running for unit in work.units)
        return sorted(sorted(units, key=lambda unit: used[unit])[:count], key=units.index)


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; does not start PyTorch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        try:
            query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
            chosen = ",".join(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split())
        except (OSError, subprocess.CalledProcessError):
            return []
    return [gpu for gpu in chosen.split(",") if gpu and gpu != "-1"]


def _affinity(process: psutil.Process | None = None) -> list[int]:
    """The cores that a process may use."""
    try:
        return list((process or psutil.Process()).cpu_affinity() or ())
    except (AttributeError, psutil.Error):  # macOS has none
        return list(range(os.cpu_count() or 1))


@contextmanager
def _only_on(cores: Sequence[str]) -> Iterator[None]:
    """Have what this thread starts meanwhile run on these cores; only Linux supports it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, map(int, cores))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
