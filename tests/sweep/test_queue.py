"""Every point is computed once, whatever is killed and whenever."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import miniature
import psutil
import pytest
from miniature import DONE, STEPS, Silent, job, points, shell, sweep, table, until
from results import failed

from lpt.errors import LptError
from lpt.sweep import processes
from lpt.sweep.ledger import Ledger
from lpt.sweep.local import LocalWork
from lpt.sweep.queue import has_checkpoint, sole_launcher

# The modules that miniature.py imports: those of the tests, and lpt.
PATHS = os.pathsep.join(map(str, list(Path(miniature.__file__).parents)[:3]))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "a sweep"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep(folder, points(6), lambda *a: job(*a, seconds=0), workers=2)
    return table(folder)


def launcher(folder: Path, workers: int = 2, retries: int = 100) -> subprocess.Popen:
    """A launcher in a process of its own."""
    return subprocess.Popen(
        [sys.executable, miniature.__file__, str(folder), str(workers), str(retries)],
        env={**os.environ, "PYTHONPATH": PATHS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def workers_of(folder: Path) -> list[psutil.Process]:
    found = processes.find_all(folder / point.name for point in points(6))
    return [process for those in found.values() for process in those]


def begun(folder: Path):
    """Some point has a checkpoint and is not completed."""
    return [path for path in folder.glob("*/checkpoints/last.ckpt") if not (path.parents[1] / "result.json").exists()]


@pytest.mark.parametrize("seed", range(max(2, int(os.environ.get("LPT_TORTURE", "0")) // 8)))
def test_a_sweep_that_is_killed_again_and_again_ends_as_one_that_is_not(folder, undisturbed, seed):
    chance = random.Random(seed)
    kills = 0
    for _ in range(3):
        process = launcher(folder)
        until(lambda: workers_of(folder) or process.poll() is not None)  # noqa: B023
        for _ in range(chance.randrange(3)):  # workers, while the launcher lives
            time.sleep(chance.uniform(0, 0.08))
            for worker in chance.sample(workers := workers_of(folder), min(1, len(workers))):
                worker.kill()
                kills += 1
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.communicate()
        if chance.random() < 0.5:  # the whole machine
            for worker in workers_of(folder):
                worker.kill()
                kills += 1
    last = launcher(folder)
    output, _ = last.communicate(timeout=60)
    assert last.returncode == 0, output
    assert table(folder) == undisturbed
    assert not list(folder.glob("*.twice")), "two processes at once on one point"
    steps = sum(len(path.read_text().split()) for path in folder.glob("*.steps"))
    assert steps <= 6 * STEPS + kills, "more was lost than what was done since the last checkpoint"
    assert workers_of(folder) == []


def test_what_a_killed_launcher_left_running_is_waited_for_and_not_started_twice(folder):
    process = launcher(folder, workers=1)
    (worker,) = until(lambda: begun(folder) and workers_of(folder))
    process.kill()
    process.wait()
    view = Silent()
    rows = sweep(folder, points(6), view=view)
    said = [message for _, message in view.told if "still running as process" in message]
    assert len(said) == 1
    assert str(worker.pid) in said[0]
    assert all(row.attempts == 1 for row in rows.values())


def test_ranks_whose_first_process_was_killed_end_before_the_point_is_started_again(folder):
    """The second process of a point outlives the first, as a rank that waits in vain."""
    both = shell(f'[ -e "$1".again ] || {{ touch "$1".again; sleep 1000 & kill -9 $$; }}; {DONE}')
    (row,) = sweep(folder, points(1), both, retries=1).values()
    assert (row.status, row.attempts) == ("completed", 2)
    assert processes.find(folder / row.name) == []


def test_running_the_same_sweep_again_does_nothing_twice(folder):
    first = sweep(folder, points(3))
    steps = {path: path.read_text() for path in folder.glob("*.steps")}
    assert sweep(folder, points(3)) == first
    assert {path: path.read_text() for path in folder.glob("*.steps")} == steps
    view = Silent()
    sweep(folder, points(4), view=view)
    assert view.names("started") == [points(4)[3].name]


def test_a_point_is_completed_only_while_its_result_says_so(folder):
    one, two = points(2)
    sweep(folder, [one, two])
    (folder / one.name / "result.json").unlink()
    (folder / two.name / "result.json").write_text('{"status": "fail')
    view = Silent()
    sweep(folder, [one, two], view=view)
    assert view.names("completed") == [one.name, two.name]


def test_a_result_that_the_ledger_does_not_know_of_counts(folder):
    (point,) = points(1)
    ledger = Ledger(folder, create=True)
    ledger.add([point], (), None)
    ledger.started(point.name, "here")
    ledger.close()
    (folder / point.name).mkdir()
    subprocess.run(shell(DONE)(point, folder / point.name, False), check=True)
    view = Silent()
    (row,) = sweep(folder, [point], view=view).values()
    assert (row.status, row.objective, view.names("started")) == ("completed", 1.0, [])


def test_a_second_launcher_is_refused_with_the_name_of_the_first(folder):
    process = launcher(folder)
    until(lambda: workers_of(folder))
    with pytest.raises(LptError, match=f"is being worked on by process {process.pid} on ") as refused:
        sweep(folder, points(6))
    assert str(refused.value).endswith(f"lpt sweep status {shlex.quote(str(folder))}")
    assert process.wait(timeout=30) == 0
    process.stdout.close()
    assert all(status == "completed" for status, _ in table(folder).values())


@pytest.mark.parametrize("retries", [0, 2])
def test_a_point_that_always_fails_is_tried_as_often_as_asked_while_others_continue(folder, retries):
    view = Silent()
    some = shell(f'case "$1" in *seed-1_*) echo "what went wrong"; exit 3;; esac; {DONE}')
    rows = sweep(folder, points(3), some, view=view, retries=retries)
    failed = points(3)[1].name
    assert (rows[failed].status, rows[failed].attempts) == ("failed", 1 + retries)
    assert rows[failed].error == "ended with exit status 3"
    assert view.names("failed, again") == [failed] * retries
    assert view.names("failed") == [failed]
    assert sorted(view.names("completed")) == sorted(set(rows) - {failed})
    assert (folder / failed / "train.log").read_text().count("what went wrong") == 1 + retries


def test_wrong_options_are_not_tried_again(folder):
    (row,) = sweep(folder, points(1), shell("exit 2"), retries=5).values()
    assert (row.status, row.attempts) == ("failed", 1)


def test_the_error_shown_is_that_of_the_last_attempt(folder):
    (point,) = points(1)
    sweep(folder, [point])
    result = folder / point.name / "result.json"
    result.unlink()  # its checkpoints stay, so that both attempts go on in the folder
    fails = f"""printf '%s' '{json.dumps(failed("no such layer"))}' > "$1"/result.json; exit 1"""
    (row,) = sweep(folder, [point], shell(fails)).values()
    assert row.error == "no such layer"
    for script, error in (("exit 3", "ended with exit status 3"), ("kill -9 $$", "killed by SIGKILL")):
        with sole_launcher(folder) as ledger:
            ledger.pending(row.name, None)
        (row,) = sweep(folder, [point], shell(script)).values()
        assert row.error == error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_every_process_within_seconds_and_the_ledger_says_so(folder, number):
    """One point ends when asked, one does not listen."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(folder)],
        env={**os.environ, "PYTHONPATH": PATHS},
    )
    until(lambda: len(list(folder.glob("*.ready"))) == 2)
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=10) == 130
    assert time.monotonic() - started < 4
    assert workers_of(folder) == []
    ledger = Ledger(folder)
    assert [(row.status, row.error) for row in ledger.rows()] == [("pending", "interrupted")] * 2 + [("pending", None)]
    ledger.close()


STUBBORN = """
import sys
from pathlib import Path
from miniature import points, shell, sweep
job = 'case "$1" in *seed-1_*) trap "" INT;; esac; touch "$1".ready; while true; do sleep 0.05; done'
try: sweep(Path(sys.argv[1]), points(3), shell(job), workers=2, grace_period=0.5)
except KeyboardInterrupt: sys.exit(130)
"""


def test_a_point_that_cannot_be_ended_stays_running_in_the_ledger_and_the_others_end(folder, monkeypatch):
    one, two = points(2)
    clear = LocalWork.clear

    def hangs(work):
        if work._folder.name == one.name:
            raise LptError("cannot be ended")
        clear(work)

    class Interrupts(Silent):
        def started(self, row):
            if row.name == two.name:
                os.kill(os.getpid(), signal.SIGINT)

    view = Interrupts()
    monkeypatch.setattr(LocalWork, "clear", hangs)
    with pytest.raises(KeyboardInterrupt):
        sweep(folder, [one, two], shell("sleep 1000"), workers=2, view=view, grace_period=0)
    assert view.told[-1] == ("say", f"{one.name}: cannot be ended")
    assert table(folder) == {one.name: ("running", None), two.name: ("pending", None)}
    assert processes.find(folder / two.name) == []
    processes.kill(folder / one.name)


def test_a_pruned_point_is_stopped_and_not_started_again(folder):
    one, two = points(2)
    seen = []

    def watch(row):
        seen.append(row.name)
        return row.name == one.name and has_checkpoint(folder / one.name)

    rows = sweep(folder, [one, two], lambda *a: job(*a, seconds=0.1), watch=watch)
    assert [row.status for row in rows.values()] == ["pruned", "completed"]
    assert processes.find(folder / one.name) == []
    assert set(seen) == {one.name, two.name}
    view = Silent()
    sweep(folder, [one, two], view=view)
    assert view.told == []


def test_two_hundred_points_leave_no_descriptor_and_no_memory_behind(folder):
    sweep(folder / "first", points(20), shell(DONE), workers=4)
    me = psutil.Process()
    descriptors, memory, children = me.num_fds(), me.memory_info().rss, me.children()
    rows = sweep(folder / "second", points(200), shell(DONE), workers=4)
    assert [row.status for row in rows.values()] == ["completed"] * 200
    assert me.num_fds() == descriptors
    assert me.memory_info().rss - memory < 20 * 2**20
    assert me.children() == children


def test_results_are_those_of_the_job(folder):
    (point,) = points(1)
    (row,) = sweep(folder, [point]).values()
    x = 0
    for _ in range(STEPS):
        x = (x * 1103515245 + 12345) % 2**31
    assert (
        row.objective
        == x
        == json.loads((folder / point.name / "result.json").read_text())["metrics"]["validation"]["x"]
    )
