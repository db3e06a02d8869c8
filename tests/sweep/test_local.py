"""Each point has its GPUs, or its share of the cores."""

import os
import sys
import time

import psutil
import pytest
from miniature import DONE, points, shell, sweep

from lpt.sweep import local
from lpt.sweep.local import LocalMachine, gpus
from lpt.sweep.processes import MARK

linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux pins processes")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine with these GPUs or cores; `start` on it returns a point's environment and ends with the test."""
    started = []

    def make(visible: str = "", cores: int = 0, **options) -> LocalMachine:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if cores:
            monkeypatch.setattr(local, "_affinity", lambda process=None: list(range(cores)))
            monkeypatch.setattr(local.os, "sched_setaffinity", lambda *_: None, raising=False)
        made = LocalMachine(**options)
        start = made.start

        def noted(point, argv=("sleep", "1000")):
            work = start(point, argv, tmp_path, tmp_path / point.name, tmp_path / "log")
            started.append(work)
            return work

        made.start = noted
        return made

    yield make
    for work in started:
        work.clear()
        work._process.wait()


def environment(work) -> dict[str, str]:
    process = psutil.Process(int(work.job))
    while MARK not in (found := process.environ()):  # in the instant in which it starts
        time.sleep(0.001)
    return found


def gpu_points(count: int, devices: int = 1):
    return points(count, **{"trainer.accelerator": "auto", "trainer.devices": devices})


def test_each_point_sees_gpus_of_its_own_as_many_as_it_asks_for(machine):
    four = machine("4,5,6,GPU-7", devices=2)
    works = [four.start(point) for point in gpu_points(2, devices=2)]
    assert four.workers == 2
    assert [environment(work)["CUDA_VISIBLE_DEVICES"] for work in works] == ["4,5", "6,GPU-7"]


def test_a_gpu_is_given_again_once_its_point_has_ended(machine):
    two = machine("0,1")
    first, _ = (two.start(point) for point in gpu_points(2))
    first.clear()
    first._process.wait()
    assert environment(two.start(gpu_points(3)[2]))["CUDA_VISIBLE_DEVICES"] == "0"


def test_more_workers_than_gpus_share_them_evenly(machine):
    two = machine("0,1", workers=4)
    works = [two.start(point) for point in gpu_points(4)]
    assert [environment(work)["CUDA_VISIBLE_DEVICES"] for work in works] == ["0", "1", "0", "1"]


def test_a_point_for_the_cpu_sees_no_gpu(machine):
    assert environment(machine("0,1").start(points(1)[0]))["CUDA_VISIBLE_DEVICES"] == ""


def test_points_on_a_cpu_share_its_cores_and_ranks_share_a_points_threads(machine):
    eight = machine(cores=8, workers=2)
    works = [eight.start(point) for point in points(2, **{"trainer.devices": 2})]
    assert [work.units for work in works] == [list("0123"), list("4567")]
    assert [environment(work)["OMP_NUM_THREADS"] for work in works] == ["2", "2"]


def test_a_single_worker_on_a_cpu_is_left_as_an_ordinary_run_is(machine):
    one = machine(cores=8)
    assert one.workers == 1
    assert "OMP_NUM_THREADS" not in environment(one.start(points(1)[0]))


@linux
def test_a_point_stays_on_its_cores_and_the_launcher_on_all(tmp_path):
    mine = os.sched_getaffinity(0)
    script = f'{sys.executable} -ISc "import os; print(sorted(os.sched_getaffinity(0)))"; {DONE}'
    rows = sweep(tmp_path, points(2), shell(script), workers=2)
    seen = [(tmp_path / name / "train.log").read_text().splitlines()[-1] for name in rows]
    assert all(len(eval(cores)) == max(1, len(mine) // 2) for cores in seen)
    assert os.sched_getaffinity(0) == mine


def test_an_adopted_point_keeps_its_gpus(machine, tmp_path):
    two = machine("0,1")
    work = two.start(gpu_points(1)[0])
    environment(work)
    other = machine("0,1")
    found = other.find(tmp_path / gpu_points(1)[0].name, work.job)
    assert found is not None
    assert (found.job, found.units, found.ended()) == (work.job, ["0"], False)
    assert environment(other.start(gpu_points(2)[1]))["CUDA_VISIBLE_DEVICES"] == "1"


def test_gpus_are_counted_without_torch_by_what_the_driver_says(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool.unlink()
    assert gpus() == []


def test_another_process_that_has_got_the_same_id_is_not_taken_for_a_point(machine, tmp_path):
    sleeper = machine().start(points(1)[0])
    environment(sleeper)
    assert machine().find(tmp_path / "another point", sleeper.job) is None
    assert not sleeper.ended()
