"""The ledger: what it refuses, and what becomes of a sweep whose defaults have changed."""

import sqlite3
from dataclasses import replace

import pytest
from miniature import DONE, points, shell, sweep

from lpt.errors import LptError
from lpt.sweep.ledger import FILE, FORMAT, TRANSIENT, Ledger, enter, patiently


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a sweep"


def test_a_folder_without_a_sweep_is_refused(folder):
    with pytest.raises(LptError, match=r"is not the folder of a sweep \(sweep.db is missing\)"):
        Ledger(folder)
    assert not folder.exists()


def test_a_file_that_is_not_a_ledger_is_refused(folder):
    folder.mkdir()
    (folder / FILE).write_text("no database" * 100)
    with pytest.raises(LptError, match="cannot be read"):
        Ledger(folder)


def test_a_ledger_of_another_format_is_refused(folder):
    ledger = Ledger(folder, create=True)
    ledger["format"] = FORMAT + 1
    ledger.close()
    with pytest.raises(LptError, match=rf"has format {FORMAT + 1}, and this version of lpt reads format {FORMAT}"):
        Ledger(folder)


def test_a_reader_does_not_wait_for_the_writer(folder):
    writer = Ledger(folder, create=True)
    writer.add(points(1), (), None)
    writer._db.execute("BEGIN IMMEDIATE")
    writer.completed(points(1)[0].name, 0.5)
    reader = Ledger(folder)
    assert [row.status for row in reader.rows()] == ["pending"]
    writer._db.execute("COMMIT")
    assert [row.status for row in reader.rows()] == ["completed"]


def test_a_changed_default_is_refused_with_both_values_and_nothing_is_entered(folder):
    sweep(folder, points(2, **{"optim.lr": 1e-3}), shell(DONE))
    ledger = Ledger(folder)
    with pytest.raises(LptError) as refused:
        enter(ledger, points(3, **{"optim.lr": 2e-3}))
    old = points(2, **{"optim.lr": 1e-3})
    for point in old:
        assert f"\n  - {point.name}: optim.lr: 0.001 -> 0.002" in str(refused.value)
    assert "hydra.launcher.accept_drift=true" in str(refused.value)
    assert [row.name for row in ledger.rows()] == [point.name for point in old]


def test_points_of_the_ledger_that_are_not_launched_again_are_compared_too(folder):
    old, today, added = (points(3, **{"optim.lr": lr}) for lr in (1e-3, 2e-3, 2e-3))
    sweep(folder, old[:2], shell(DONE))
    ledger = Ledger(folder)
    with pytest.raises(LptError, match=rf"\n  - {old[0].name}: optim.lr: 0.001 -> 0.002$"):
        enter(ledger, added[2:], others=lambda: today[:1])
    assert len(ledger.rows()) == 2
    assert enter(ledger, added[2:], accept_drift=True, others=lambda: today[:1]) == [added[2].name]
    assert [row.name for row in ledger.rows()] == [old[0].name, old[1].name, added[2].name]


def test_accepting_drift_keeps_what_is_completed_and_takes_todays_values_for_the_rest(folder):
    some = shell(f'case "$1" in *seed-1_*) exit 1;; esac; {DONE}')
    old, new = points(2, **{"optim.lr": 1e-3}), points(3, **{"optim.lr": 2e-3})
    sweep(folder, old, some)
    ledger = Ledger(folder)
    assert enter(ledger, new, accept_drift=True) == [old[0].name, new[1].name, new[2].name]
    assert {row.name: row.status for row in ledger.rows()} == {
        old[0].name: "completed",
        new[1].name: "pending",
        new[2].name: "pending",
    }


def test_different_options_with_the_same_values_are_the_same_point(folder):
    (point,) = points(1)
    ledger = Ledger(folder, create=True)
    assert (
        enter(ledger, [point, replace(point, name="another", overrides=("seed=0", "optim.lr=1"))]) == [point.name] * 2
    )
    assert len(ledger.rows()) == 1


@pytest.mark.parametrize("reason", TRANSIENT)
def test_a_ledger_that_cannot_be_used_for_a_while_is_waited_for(folder, monkeypatch, capsys, reason):
    monkeypatch.setattr("lpt.sweep.ledger.RETRY", 0.0)
    failures = iter(range(3))

    def work():
        if next(failures, None) is not None:
            raise sqlite3.OperationalError(reason)
        return "done"

    assert patiently(work, folder / FILE) == "done"
    assert capsys.readouterr().out == (
        f"{folder / FILE} cannot be used now ({reason}); waiting, while running points run on\n"
    )
    monkeypatch.setattr("lpt.sweep.ledger.PATIENCE", -1.0)
    failures = iter(range(3))
    with pytest.raises(LptError, match="end what holds it or free the disk, and resume the sweep"):
        patiently(work, folder / FILE)


def test_other_failures_of_a_ledger_are_not_waited_for(folder):
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        Ledger(folder, create=True)._execute("SELECT * FROM absent")
