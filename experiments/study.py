"""The study: every method with its learning rate chosen on validation rows, over tasks, numbers of rows and seeds.

    python experiments/study.py runs/study --data <folder of GLUE and LM-BFF data> [--backbone minilm-l6] [--workers 1]
    lpt report runs/study/runs

First, with the first seed, three learning rates for each method, task and number of rows: the method's own, a third of
it and three times that (`runs/study/rates`). The one that does best on the validation rows is taken for all seeds.
There are as many validation rows as training rows, at most 200, which also choose the step that is kept and tested.

What is completed is not run again, so it can be interrupted and started again. All points of one seed come before those
of the next, so that what is there is fair at any time.
"""

import argparse
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

LATE = {"smollm2-135m": 16, "minilm-l6": 4}
STEPS = {16: 150, 200: 300, 2000: 1000}
READ_ONLY = "lpt.read_only=true"


class Cell(NamedTuple):
    """What seeds are averaged over."""

    backbone: str
    task: str
    rows: int
    method: str

    @property
    def path(self) -> Path:
        """Where its runs are, in a folder of runs."""
        return Path(self.backbone, self.task, f"k{self.rows}", self.method)


def methods(layer: int) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Name -> the middle one of three learning rates, and options."""
    late_lora = ("method=lora", f"lpt.layer={layer}", "method.targets=all")
    probe = ("head=linear", "head.lr=null")
    return {
        "zero_shot": (math.nan, ("method=zero_shot",)),
        "state_probe": (1e-2, ("method=state_probe", f"lpt.layer={layer}", *probe)),
        "linear_probe": (1e-2, ("method=linear_probe", *probe)),
        "lpt": (3e-3, ("method=lpt", "lpt.read_only=false")),
        "lpt_read_only": (3e-3, ("method=lpt", READ_ONLY)),
        "lipt_read_only": (3e-3, ("method=lpt", "generator=inception", "generator.initial=pooled", READ_ONLY)),
        "deep_lpt_read_only": (1e-3, ("method=deep_lpt", "lpt.bottleneck=32", READ_ONLY)),
        "spt_read_only": (1e-3, ("method=spt", "lpt.bottleneck=32", READ_ONLY)),
        "iapt_read_only": (1e-3, ("method=iapt", "lpt.bottleneck=32", READ_ONLY)),
        "lora_read_only": (1e-3, (*late_lora, READ_ONLY)),
        "lpt_lora_read_only": (1e-3, ("method=lpt_lora", READ_ONLY)),
        "ladder_read_only": (1e-3, ("method=ladder", f"lpt.layer={layer}", READ_ONLY)),
        "late_ladder": (1e-3, ("method=ladder", f"lpt.layer={layer}")),
        "late_lora": (1e-3, late_lora),
        "lpt_lora": (1e-3, ("method=lpt_lora",)),
        "lora": (1e-3, ("method=lora",)),
        "adapter": (1e-3, ("method=adapter",)),
        "bitfit": (3e-3, ("method=bitfit",)),
        "prompt_tuning": (1e-2, ("method=prompt_tuning", "generator.init=vocabulary")),
        "p_tuning_v2": (1e-2, ("method=p_tuning_v2",)),
        "full": (3e-5, ("method=full",)),
    }


def tasks(data: Path | None) -> dict[str, tuple[str, ...]]:
    """Name -> options."""
    found: dict[str, tuple[str, ...]] = {"film_reviews": ("task=film_reviews",)}
    if data is not None:
        for name in ("trec", "subj", "mrpc", "cola", "sst2"):
            found[name] = (f"task={name}", "task.source=tsv", f"task.data_dir={data.resolve()}")
    return found


def cells(found: argparse.Namespace) -> list[Cell]:
    """All that is measured, in the order that it is run."""
    # A Llama has no biases, and without an LM head there are no label words.
    impossible = "bitfit" if found.backbone == "smollm2-135m" else "zero_shot"
    chosen = [name for name in found.only or methods(1) if name != impossible]
    every = [Cell(found.backbone, task, k, name) for k, name, task in product(found.rows, chosen, found.tasks)]
    # Zero-shot answers depend on no rows.
    return [cell for cell in every if cell.method != "zero_shot" or cell.rows == found.rows[0]]


def options_of(cell: Cell, seed: int, rate: float, found: argparse.Namespace) -> list[str]:
    """The options of a run."""
    own = methods(LATE[cell.backbone])[cell.method][1]
    options = [f"backbone={cell.backbone}", *tasks(found.data)[cell.task], *own, f"seed={seed}", "logger=none"]
    options += ["fewshot=total", f"fewshot.k={cell.rows}", f"fewshot.k_dev={min(cell.rows, 200)}"]
    if cell.backbone == "minilm-l6" and "head=linear" not in own:
        options.append("head=linear")
    if not math.isnan(rate):
        steps = STEPS[cell.rows]
        options += [f"optim.lr={rate:.3g}", f"trainer.max_steps={steps}", f"trainer.eval_every={steps // 10}"]
    return [*options, *found.options]


def rates_of(cell: Cell) -> list[float]:
    """The learning rates to try; nan where nothing is trained."""
    middle = methods(1)[cell.method][0]
    return [middle] if math.isnan(middle) else [middle / 3, middle, middle * 3]


def tried(cell: Cell, found: argparse.Namespace) -> Iterator[tuple[float, Path]]:
    """Each learning rate, and the folder of its run with the first seed."""
    for rate in rates_of(cell):
        yield rate, found.folder / "rates" / cell.path / f"lr{rate:.3g}"


def best_rate(cell: Cell, found: argparse.Namespace) -> tuple[float, Path] | None:
    """The learning rate that did best on validation rows, and its run; None where all have failed."""
    scores = {}
    for rate, folder in tried(cell, found):
        if completed(folder):
            result = json.loads((folder / "result.json").read_text())
            scores[rate, folder] = result["metrics"]["validation"][result["primary_metric"]]
    return max(scores, key=scores.__getitem__) if scores else None


def completed(folder: Path) -> bool:
    """Whether a run has been completed there."""
    try:
        return json.loads((folder / "result.json").read_text())["status"] == "completed"
    except (OSError, ValueError):
        return False


def run(point: tuple[Path, list[str]]) -> str:
    """Run one point; a line for people."""
    import lpt
    from lpt.console import quietly

    folder, options = point
    start = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with quietly():
            trained = lpt.train(*options, f"hydra.run.dir={folder.resolve()}")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # gigabytes, over all points
    except Exception as error:  # a failed point does not stop the others
        return f"{folder}: FAILED: {error}"
    score = next(iter(trained.metrics["test"].values()))
    return f"{folder}: {score:.3f} in {time.perf_counter() - start:.0f} s"


def run_all(points: list[tuple[Path, list[str]]], workers: int) -> int:
    """Run those that are not completed; how many have failed."""
    todo, failed = [point for point in points if not completed(point[0])], 0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for number, line in enumerate(pool.imap_unordered(run, todo), 1):
            print(f"{number}/{len(todo)}  {line}", flush=True)
            failed += ": FAILED: " in line
    return failed


def main() -> str | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--data", type=Path, help="folder of GLUE's tasks, with TREC and Subj; without it, film reviews"
    )
    parser.add_argument("--backbone", choices=LATE, default="smollm2-135m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[13, 21, 42, 87, 100])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[200], choices=STEPS, help="training rows (default: 200)"
    )
    parser.add_argument("--tasks", nargs="+", help="of film_reviews, trec, subj, mrpc, cola, sst2 (default: all)")
    parser.add_argument("--only", nargs="+", choices=methods(1), help="methods (default: all)")
    parser.add_argument("--options", nargs="+", default=[], help="of all runs, such as trainer.precision=32")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    found = parser.parse_args()
    found.tasks = found.tasks or list(tasks(found.data))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // found.workers)))
    first, every = found.seeds[0], cells(found)
    points = [(at, options_of(cell, first, rate, found)) for cell in every for rate, at in tried(cell, found)]
    failed = run_all(points, found.workers)
    points = []
    for seed, cell in product(found.seeds, every):
        folder, chosen = found.folder / "runs" / cell.path / f"seed{seed}", best_rate(cell, found)
        if chosen is None or (cell.method == "zero_shot" and seed != first):
            continue
        if seed == first:
            shutil.copytree(chosen[1], folder, dirs_exist_ok=True)
        else:
            points.append((folder, options_of(cell, seed, chosen[0], found)))
    failed += run_all(points, found.workers)
    return f"{failed} points failed" if failed else None


if __name__ == "__main__":
    sys.exit(main())
