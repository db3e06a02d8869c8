"""A sweep in miniature: a job that computes a number step by step, and a launcher of such jobs.

As a program it is that launcher, to be killed: `python miniature.py <folder> <workers> <retries>`.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from results import completed

from lpt.sweep.ledger import Ledger, Row, enter
from lpt.sweep.local import LocalMachine
from lpt.sweep.points import Point, content_hash
from lpt.sweep.queue import Queue, sole_launcher
from lpt.sweep.view import SweepView

STEPS, STEP_SECONDS = 5, 0.03
RESULT = json.dumps(completed(primary_metric="x", metrics={"validation": {"x": 1}}))

# Every step follows from the last; a checkpoint after each. Notes its steps, and if it is not alone in its folder.
JOB = r"""
import fcntl, json, os, sys, time
folder, seed, resuming, steps, seconds = sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:6])
lock = open(folder + ".lock", "w")
try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: open(folder + ".twice", "w")
step, x = 0, seed
if resuming:
    step, x = json.loads(open(folder + "/checkpoints/last.ckpt", "rb").readline())
os.makedirs(folder + "/checkpoints", exist_ok=True)
os.makedirs(folder + "/.hydra", exist_ok=True)
open(folder + "/.hydra/config.yaml", "w")
while step < steps:
    time.sleep(seconds)
    step, x = step + 1, (x * 1103515245 + 12345) % 2**31
    with open(folder + ".steps", "a") as file: file.write("%d\n" % step)
    with open(folder + "/partial", "wb") as file:  # with the end of a zip file, as torch.save writes
        file.write(json.dumps([step, x]).encode() + b"\nPK\5\6" + bytes(18))
    os.replace(folder + "/partial", folder + "/checkpoints/last.ckpt")
result = json.loads(sys.argv[6])
result["metrics"]["validation"]["x"] = x
with open(folder + "/partial", "w") as file: json.dump(result, file)
os.replace(folder + "/partial", folder + "/result.json")
"""


def points(count: int, **facts: object) -> list[Point]:
    """Points 0.. of a sweep over seeds."""
    made = []
    for seed in range(count):
        own = {"method.name": "lpt", "trainer.accelerator": "cpu", "seed": seed, **facts}
        made.append(Point(f"seed-{seed}_{content_hash(own)[:8]}", (f"seed={seed}",), own))
    return made


def job(point: Point, folder: Path, resuming: bool, steps: int = STEPS, seconds: float = STEP_SECONDS) -> list[str]:
    arguments = [str(folder), point.facts["seed"], int(resuming), steps, seconds, RESULT]
    return [sys.executable, "-I", "-S", "-c", JOB, *map(str, arguments)]


def shell(script: str):
    """A command that is the same for every point, with its folder as $1."""
    return lambda point, folder, resuming: ["/bin/sh", "-c", script, "sh", str(folder)]


DONE = f"""printf '%s' '{RESULT}' > "$1"/result.json"""


class Silent:
    """A view that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def say(self, message: str) -> None:
        self.told.append(("say", message))

    def started(self, row: Row) -> None:
        self.told.append(("started", row.name))

    def completed(self, row: Row) -> None:
        self.told.append(("completed", row.name))

    def failed(self, row: Row, log: Path, again: bool) -> None:
        self.told.append(("failed, again" if again else "failed", row.name))

    def refresh(self, rows) -> None:
        pass

    def names(self, what: str) -> list[str]:
        return [name for kind, name in self.told if kind == what]


def sweep(
    folder: Path, swept: Sequence[Point], command=job, *, workers: int = 1, view=None, retries: int = 0, **options
) -> dict[str, Row]:
    """Enter points and work on them in this process; the ledger's rows by name."""
    with sole_launcher(folder, create=True) as ledger:
        names = enter(ledger, swept)
        place = LocalMachine(workers)
        Queue(ledger, command, place, view or Silent(), retries=retries, poll=0.005, **options).run(names)
        return {row.name: row for row in ledger.rows()}


def until(condition, seconds: float = 60.0):
    """Wait for something; returns it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


def table(folder: Path) -> dict[str, tuple[str, float | None]]:
    """What a sweep has come to."""
    ledger = Ledger(folder)
    found = {row.name: (row.status, row.objective) for row in ledger.rows()}
    ledger.close()
    return found


if __name__ == "__main__":
    folder, workers, retries = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with SweepView(folder, 0) as view:
        sweep(folder, points(6), workers=workers, retries=retries, view=view)
