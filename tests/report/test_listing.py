"""`lpt runs`."""

import json
import subprocess
import sys
from contextlib import closing

import pytest
from made_runs import older, write_run
from miniature import points

from lpt.cli import main
from lpt.latest import point_latest
from lpt.sweep.ledger import Ledger, enter


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for age, name, options in (
        (400, "lora", {"method": "lora", "right": 0.7, "result": {"wall_seconds": 3700.0}}),
        (300, "failed", {"error": "out of \x1b[2Jmemory"}),
        (200, "trec", {"task": "trec", "right": 0.9}),
        (100, "sweep/one", {"right": 0.75}),
        (50, "sweep/two", {"right": 0.8, "method": "lora"}),
    ):
        older(write_run(folder / name, **options), age)
    write_run(folder / "cut", unfinished=True)
    with closing(Ledger(folder / "sweep", create=True)) as ledger:
        one, two, _ = enter(ledger, points(3))
        for name in (one, two):
            ledger.completed(name, 0.8)
    point_latest(folder / "trec")
    return folder


SWEEP = ["sweep", "of", "3:", "2", "completed,", "1", "pending"]


def listed(capsys, *arguments):
    main(["runs", *map(str, arguments)])
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_runs_are_listed_newest_first_and_a_sweep_in_one_line(runs, capsys):
    heading, *lines = listed(capsys, runs)
    assert heading[1:] == ["task", "backbone", "method", "metric", "validation", "test", "time", "status", "folder"]
    assert [line[2:-1] for line in lines] == [
        ["-", "-", "-", "-", "-", "-", "-", "unfinished"],
        ["reviews", "tiny", "-", "accuracy", "0.800", "0.800", "3:00", *SWEEP],
        ["trec", "tiny", "lpt", "accuracy", "0.900", "0.900", "1:30", "completed"],
        ["reviews", "tiny", "lpt", "-", "-", "-", "-", "failed"],
        ["reviews", "tiny", "lora", "accuracy", "0.700", "0.700", "1:01:40", "completed"],
    ]
    assert [line[-1] for line in lines] == [str(runs / name) for name in ("cut", "sweep", "trec", "failed", "lora")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--sort", "score"], ["trec", "sweep", "lora"]),
        (["--sort", "time"], ["lora", "sweep", "trec"]),
        (["--sort", "date", "--task", "reviews"], ["sweep", "failed", "lora"]),
    ],
)
def test_lines_are_sorted_and_chosen(runs, capsys, options, expected):
    names = [line[-1] for line in listed(capsys, runs, *options)[1:]]
    assert names[:3] == [str(runs / name) for name in expected]


def test_a_sweep_lists_its_runs_and_a_run_says_what_became_of_it(runs, capsys):
    assert [line[-1] for line in listed(capsys, runs / "sweep")[1:]] == [f"{runs}/sweep/{x}" for x in ("two", "one")]
    assert [line[-1] for line in listed(capsys, runs / "latest")[1:]] == [str(runs / "trec")]
    assert listed(capsys, runs / "failed")[2:] == [["why:", "out", "of", "\ufffd[2Jmemory"]]
    assert listed(capsys, runs / "cut")[2][-1] == f"resume={runs / 'cut'}"


def test_json_has_every_run(runs, capsys):
    main(["runs", str(runs), "--json"])
    found = {line["folder"]: line for line in json.loads(capsys.readouterr().out)}
    assert {name: line["sweep"] for name, line in found.items()} == {
        str(runs / name): str(runs / "sweep") if "/" in name else None
        for name in ("cut", "sweep/two", "sweep/one", "trec", "failed", "lora")
    }
    assert found[str(runs / "failed")]["error"] == "out of \x1b[2Jmemory"


def test_no_runs_and_no_folder(tmp_path, capsys):
    assert listed(capsys, tmp_path) == [["no", "run", "under", str(tmp_path)]]
    (tmp_path / "runs").mkdir()
    with pytest.raises(SystemExit):
        main(["runs", f"{tmp_path}/rnus"])
    assert (
        capsys.readouterr().err == f"error: {tmp_path}/rnus: there is no such folder; did you mean {tmp_path}/runs?\n"
    )


def test_a_thousand_results_need_neither_torch_nor_pandas_nor_the_configurations(runs):
    heavy = ("torch", "numpy", "pandas", "hydra", "rich.table")
    code = f"import sys, lpt.cli; lpt.cli.main(['runs', {str(runs)!r}]); sys.exit(str({heavy} & sys.modules.keys()))"
    code = code.replace(str(heavy), str(set(heavy)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "set()\n"
