"""Answers for files: every row once, in order, whatever happens in between."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from places import REPOSITORY

from lpt.adapter import AdapterConfig
from lpt.data.reading import Reading, TextFormat
from lpt.errors import LptError
from lpt.scoring import score
from lpt.scoring.answers import Columns
from lpt.scoring.records import Records
from lpt.scoring.score import Answering, Job, score_file

KINDS = [".csv", ".tsv", ".jsonl", ".parquet"]
CONFIG = AdapterConfig("mood", "", None, "", {}, "", ["bad", "good"], {}, "", "", 0)
ROWS = [{"id": f"n{i}", "body": f'text {i}, with "quotes" and é {"word " * (i % 7)}'} for i in range(60)]


def answer(texts):
    """Depends on the text alone, so that any mistake in the order shows."""
    sure = [0.5 + len(text) % 50 / 100 for text in texts]
    said = [{"bad": 1 - p, "good": p} for p in sure]
    return {"mood": [SimpleNamespace(label="good", probabilities=one, value=None) for one in said]}


def write(path, rows=ROWS):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            if path.suffix == ".tsv":
                file.writelines(
                    "\t".join(row.values()) + "\n" for row in [dict.fromkeys(rows[0]) | {k: k for k in rows[0]}, *rows]
                )
            else:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    return path


def read(path):
    return [record.values for record in Records.of(path, TextFormat())]


def job(path, output, answers=answer, **changed):
    records = Records.of(path, TextFormat())
    columns = Columns({"mood": CONFIG}, changed.pop("prefix", ""), output.suffix != ".jsonl")
    answering = Answering(Reading(a="body"), columns, answers, 0.9, changed.pop("blank", False))
    return Job(records, answering, **{"wanted": records.count()} | changed)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(score, "CHUNK", 7)


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_keep_their_columns_and_order_and_get_their_answers(kind, to, tmp_path, capsys):
    path, output = write(tmp_path / f"in{kind}"), tmp_path / f"out{to}"
    score_file(job(path, output), output, {}, False, False)
    found = read(output)
    assert [{name: row[name] for name in ("id", "body")} for row in found] == read(path)
    expected = answer([row["body"] for row in read(path)])["mood"]
    for row, prediction in zip(found, expected, strict=True):
        assert row["label"] == "good"
        assert float(row["confidence"]) == pytest.approx(prediction.probabilities["good"])
        p = row["probabilities"]["bad"] if to == ".jsonl" else row["p(bad)"]
        assert float(p) == pytest.approx(prediction.probabilities["bad"])
    assert [path.name for path in sorted(tmp_path.iterdir())] == sorted([path.name, output.name])
    assert "60 rows, " in capsys.readouterr().err


@pytest.mark.parametrize("to", KINDS)
def test_what_was_interrupted_anywhere_continues_and_ends_as_if_it_had_not_been(to, tmp_path):
    path, whole, output = write(tmp_path / "in.csv"), tmp_path / f"whole{to}", tmp_path / f"out{to}"
    score_file(job(path, whole), whole, {"x": 1}, False, False)
    calls, said = 0, []

    def interrupted(texts):
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt
        return answer(texts)

    for _ in range(20):
        try:
            score_file(job(path, output, interrupted), output, {"x": 1}, False, False)
            break
        except KeyboardInterrupt as stop:
            said.append(str(stop))
            partial = tmp_path / f"out{to}.partial"
            with partial.open("ab") as file:
                file.write(b"half a line that was cut of")
    assert calls > 9
    assert all("the same command continues" in text for text in said)
    assert read(output) == read(whole)
    if to != ".parquet":
        assert output.read_bytes() == whole.read_bytes()


def test_parts_put_together_are_the_whole(tmp_path):
    path, whole = write(tmp_path / "in.jsonl"), tmp_path / "whole.jsonl"
    score_file(job(path, whole), whole, {}, False, False)
    parts = b""
    for number in range(3):
        output = tmp_path / f"{number}.jsonl"
        score_file(job(path, output, part=(20 * number, 20 * number + 20), wanted=20), output, {}, False, False)
        parts += output.read_bytes()
    assert parts == whole.read_bytes()


def test_nothing_is_replaced_or_continued_by_another_command(tmp_path):
    path, output = write(tmp_path / "in.csv"), tmp_path / "out.csv"

    def stop(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file(job(path, output, stop), output, {"adapters": "a"}, False, False)
    with pytest.raises(
        LptError, match=r"unfinished, of a command with other adapters; remove .* or begin anew with --rest"
    ):
        score_file(job(path, output), output, {"adapters": "b"}, False, False)
    with pytest.raises(LptError, match="unfinished, and cannot be continued"):
        score_file(job(path, output), output, None, False, False)
    score_file(job(path, output), output, {"adapters": "b"}, True, False)
    with pytest.raises(LptError, match="is there already; name another file, or replace it with --overwrite"):
        score_file(job(path, output), output, {"adapters": "b"}, False, False)
    before = output.stat().st_mtime_ns
    score_file(job(path, output), output, {"adapters": "b"}, False, True)
    assert output.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "a"}, {"body": None}], r"in\.jsonl, line 2: column 'body' is missing"),
        ([{"body": "a"}, {"other": "b"}], r"in\.jsonl, line 2 has no column 'body'"),
        ([{"body": "a"}, {"body": 7}], r"in\.jsonl, line 2: column 'body' is 7, of type int"),
        ([{"body": "a", "label": "x"}], r"in\.jsonl, line 1 has a column 'label' already; name those .*--prefix"),
    ],
)
def test_a_row_that_cannot_be_answered_is_told_with_its_place_and_may_stay_blank(rows, message, tmp_path):
    path, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with pytest.raises(LptError, match=message):
        score_file(job(path, output), output, {}, False, False)
    assert not output.exists()
    if "label" not in rows[0]:
        score_file(job(path, output, blank=True), output, {}, True, False)
        assert [row["label"] for row in read(output)] == ["good", None]


def test_a_table_has_the_columns_of_its_first_row(tmp_path):
    path, output = write(tmp_path / "in.jsonl", [{"body": "a"}, {"body": "b", "more": 1}]), tmp_path / "out.csv"
    with pytest.raises(LptError, match=r"line 2 has the key 'more', which the first row lacks; write \.jsonl"):
        score_file(job(path, output), output, {}, False, False)


def test_parquet_keeps_the_types_of_its_columns(tmp_path):
    table = pyarrow.table({"n": pyarrow.array([1, 2], pyarrow.int16()), "body": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    output = tmp_path / "out.parquet"
    score_file(job(tmp_path / "in.parquet", output), output, {}, False, False)
    schema = pyarrow.parquet.read_schema(output)
    assert schema.names == ["n", "body", "label", "confidence", "p(bad)", "p(good)"]
    assert schema.field("n").type == pyarrow.int16()


def test_rows_in_memory_do_not_grow_with_the_file(tmp_path):
    held = []

    def counted(texts):
        held.append(len(texts))
        return answer(texts)

    path, output = write(tmp_path / "in.csv", ROWS * 50), tmp_path / "out.csv"
    score_file(job(path, output, counted), output, {}, False, False)
    assert max(held) == 7
    assert sum(held) == 3000


SCRIPT = """
import sys, time
sys.path[:0] = [{tests!r}, {here!r}]
import test_score
from pathlib import Path
from types import SimpleNamespace
from lpt.scoring import score
score.CHUNK = 5
def slow(texts):
    time.sleep(0.02)
    return test_score.answer(texts)
path, output = Path(sys.argv[1]), Path(sys.argv[2])
score.score_file(test_score.job(path, output, slow), output, {{"x": 1}}, False, False)
"""


def test_a_process_that_is_killed_at_any_moment_loses_and_doubles_no_row(tmp_path):
    path, whole, output = write(tmp_path / "in.csv", ROWS * 3), tmp_path / "whole.csv", tmp_path / "out.csv"
    score_file(job(path, whole), whole, {}, False, False)
    script = SCRIPT.format(tests=str(REPOSITORY / "tests"), here=str(Path(__file__).parent))
    kills = 0
    while not output.exists():
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(output)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.DEVNULL,
        )
        partial, before = tmp_path / "out.csv.partial", _size(tmp_path / "out.csv.partial")
        while process.poll() is None and kills < 3 and _size(partial) <= before:
            time.sleep(0.002)
        if kills < 3 and process.poll() is None:
            time.sleep(0.013 * kills)
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.wait(60) in (0, -signal.SIGKILL)
    assert kills == 3
    assert read(output) == read(whole)


def _size(path):
    return path.stat().st_size if path.exists() else 0
