import os

import pytest

from lpt.config.resume import complete_arguments
from lpt.latest import follow, point_latest


@pytest.fixture
def runs(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return tmp_path / "runs"


def test_latest_leads_to_the_run_that_was_started_last(runs):
    for name in ("one", "two", "one"):
        point_latest(runs / name)
        assert follow(runs / "latest") == runs / name
    assert os.readlink(runs / "latest") == "one"  # also where the folder of all runs is moved
    assert follow(runs / "two") == runs / "two"
    point_latest(runs / "latest")  # no circle
    assert sorted(path.name for path in runs.iterdir()) == ["latest", "one", "two"]


def test_what_else_is_called_so_is_left_alone_and_so_is_the_working_directory(runs, monkeypatch):
    (runs / "latest").mkdir()
    point_latest(runs / "one")
    assert not (runs / "latest").is_symlink()
    (runs / "latest").rmdir()
    monkeypatch.chdir(runs)
    point_latest(runs / "one")
    assert not (runs / "latest").exists()


def test_where_links_cannot_be_made_there_is_none(runs, monkeypatch):
    def refuse(*_, **__):
        raise OSError("not on this disk")

    monkeypatch.setattr(os, "symlink", refuse)
    point_latest(runs / "one")
    assert sorted(path.name for path in runs.iterdir()) == ["one", "two"]


def test_resuming_latest_names_the_run_that_it_leads_to_now(runs):
    point_latest(runs / "two")
    assert complete_arguments([f"resume={runs}/latest"])[:2] == [f"resume={runs}/two", f"hydra.run.dir={runs}/two"]
    assert complete_arguments(["-m", f"hydra.sweep.dir={runs}/latest"])[1] == f"hydra.sweep.dir={runs}/two"
