import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from places import REPOSITORY
from tiny import tiny_adapter

from lpt import LatePromptClassifier
from lpt.adapter import CONFIG_NAME
from lpt.backbones.pretrained import find_pretrained
from lpt.cache import entries as cache_entries
from lpt.calibration import calibration_error
from lpt.cli import main
from lpt.data.reading import Reading
from lpt.data.tasks import FilesSource, Task
from lpt.errors import LptError


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    config = tiny_adapter(folder, "llama")
    classifier = LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32)
    classifier.save_pretrained(folder / "adapter")
    return str(folder / "adapter")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "predict"),
        (["bench", "--help"], "experiment=bench_roberta_base"),
        (["bench", "lpt.layr=1"], "there is no option lpt.layr"),
        (["predict", "rnus/one", "--text", "a"], "rnus/one: there is no such folder; did you mean runs/one?"),
        (["predict", "runs/one", "--text", "a"], "runs/one holds no adapter"),
        (["predict", "nobody/nothing", "--text", "a"], "'nobody/nothing' is neither a folder here nor an adapter on"),
        (["evaluate", "runs/one", "--input", "none.csv"], "--input: none.csv does not exist"),
        (["runs", "rnus"], "rnus: there is no such folder; did you mean runs?"),
        (["report", "rnus"], "rnus: there is no such folder; did you mean runs?"),
        (["replay", "rnus"], "rnus holds no run"),
        (["sweep", "status", "rnus"], "rnus is not the folder of a sweep"),
        (["sweep", "resume", "rnus"], "rnus is not the folder of a sweep"),
        (["cache", "list"], "0 entries"),
        (["cache", "clear", "--older", "30"], "'30' must be a number of hours, days or weeks: 12h, 30d or 4w"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_complaints_do_not_wait_for_torch(tmp_path, arguments, shown):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    code = (
        f"import sys, lpt.cli\ntry: lpt.cli.main({arguments})\n"
        "except SystemExit: pass\nassert not {'torch', 'transformers', 'matplotlib'} & sys.modules.keys()"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LPT_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout + done.stderr


def test_predict_writes_a_json_object_per_text_in_order(adapter, capsys):
    main(["predict", adapter, "--precision", "32", "--text", "a good film", "never again"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["a good film", "never again"]
    assert all(answer["label"] in answer["probabilities"] for answer in answers)
    assert all(sum(answer["probabilities"].values()) == pytest.approx(1) for answer in answers)


def test_texts_from_stdin_a_file_and_the_command_line_give_the_same(adapter, tmp_path, capsys, monkeypatch):
    texts = ["a good film", "it was dull", "never again"]
    main(["predict", adapter, "--precision", "32", "--text", *texts])
    expected = capsys.readouterr().out
    for start, end in ((b"", "\n"), (b"\xef\xbb\xbf", "\r\n")):  # Windows writes a byte order mark
        feed(monkeypatch, start + (end.join(texts) + end).encode())
        main(["predict", adapter, "--precision", "32"])
        assert capsys.readouterr().out == expected
    (tmp_path / "texts.csv").write_text("review\n" + "\n".join(texts) + "\n")
    output = tmp_path / "answers.jsonl"
    file_options = ["--input", str(tmp_path / "texts.csv"), "--a", "review", "--output", str(output)]
    main(["predict", adapter, "--precision", "32", *file_options])
    assert output.read_text() == expected.replace('"text": ', '"review": ')  # the column keeps its name
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def feed(monkeypatch, content: bytes):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_bytes_that_are_not_utf8_are_told_with_their_line_or_number(adapter, capsys, monkeypatch):
    feed(monkeypatch, b"a film\n\xe9tude\n")
    with pytest.raises(SystemExit) as stop:
        main(["predict", adapter, "--precision", "32"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: stdin, line 2: byte 0xe9 is not UTF-8; convert the text to UTF-8\n"
    with pytest.raises(SystemExit):
        main(["predict", adapter, "--text", "a film", "\udce9tude"])  # what Python makes of such an argument
    assert capsys.readouterr().err == (
        "error: --text: text 2 has half of a character (lone surrogate U+DCE9) at place 1; correct or remove it\n"
    )


def test_who_reads_the_first_lines_alone_gets_no_complaint(adapter):
    """As `lpt predict ... | head -1` does."""
    command = [sys.executable, "-m", "lpt", "predict", adapter, "--precision", "32", "--text", *["a film"] * 5000]
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -1; exit ${PIPESTATUS[0]}', "bash", *command], capture_output=True
    )
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (141, 1, b"")


@pytest.mark.parametrize("texts", [["-meh"], ["fine", "-meh"]])
def test_a_text_that_looks_like_an_option_is_told_how_to_write_it(adapter, capsys, texts):
    with pytest.raises(SystemExit) as stop:
        main(["predict", adapter, "--text", *texts])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("; a text that begins with a dash is given as --text=-meh\n")
    main(["predict", adapter, "--precision", "32", "--text", "fine", "--text=-meh"])
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["fine", "-meh"]


def test_a_run_folder_names_its_adapter(adapter, capsys):
    run = str(Path(adapter).parent)
    main(["predict", run, "--precision", "32", "--text", "fine"])
    of_run = capsys.readouterr().out
    main(["predict", adapter, "--precision", "32", "--text", "fine"])
    assert of_run == capsys.readouterr().out


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([], "; give a run folder or its adapter/"),
        ([".hydra/config.yaml"], "; its run has not ended; resume it with: python train.py resume="),
        (
            [".hydra/config.yaml", "result.json"],
            "; its run has failed, or there was nothing to train; to see which: lpt",
        ),
        (["sweep.db"], "; it is a sweep; name one of its runs, which this lists: lpt runs "),
    ],
)
def test_a_folder_without_an_adapter_says_why(tmp_path, made, reason):
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(LptError, match=re.escape(reason)):
        LatePromptClassifier.from_pretrained(tmp_path)


@pytest.fixture
def stars(adapter, tmp_path):
    """The same adapter, trained on files with other columns and values."""
    folder = tmp_path / "stars"
    shutil.copytree(adapter, folder)
    values = {"1": "bad", "5": "good", "3": "ignore"}
    source = FilesSource(train="x.csv", a="review", label="stars", values=values, delimiter=";")
    reading = Reading.of(Task(labels=["bad", "good"], source="files", files=source))
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps(config | {"reading": asdict(reading)}))
    return str(folder)


def test_a_file_is_read_as_the_one_that_the_adapter_was_trained_on(stars, tmp_path, capsys):
    main(["predict", stars, "--precision", "32", "--text", "a good film", "never again"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    labels = [answer["label"] for answer in answers]
    numbers = [{"bad": 1, "good": 5}[label] for label in labels]
    path = tmp_path / "gold.csv"
    path.write_text(f"stars;review\n{numbers[0]};a good film\n3;so so\n{numbers[1]};never again\n")
    main(["evaluate", stars, "--precision", "32", "--input", str(path)])
    lines = capsys.readouterr().out.splitlines()
    confidence = [max(answer["probabilities"].values()) for answer in answers]
    assert f"expected calibration error {calibration_error(np.array(confidence), np.ones(2)):.3f}" in lines
    assert lines[0] == "2 rows, 1 left out (label ignored by --values)"
    assert lines[1].startswith("accuracy  1.000  ")
    assert any(line.endswith("rows below 0.9: 100.0% right") for line in lines)
    words = [line.split() for line in lines]
    assert ["class", "precision", "recall", "F1", "rows"] in words
    assert [labels[0], "1.000", "1.000", "1.000", str(labels.count(labels[0]))] in words
    assert (words[-1][:3], words[-1][-1]) == (["mean", "of", "classes"], "2")
    main(["predict", stars, "--precision", "32", "--input", str(path)])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_options_say_where_a_file_differs_from_that(stars, tmp_path, capsys):
    path = tmp_path / "gold.csv"
    path.write_text("text,verdict\nnever again,x=y\nfine,n\n")
    own = ["--a", "text", "--label", "verdict", "--delimiter", ",", "--values", "x=y=good", "n=bad"]
    main(["evaluate", stars, "--precision", "32", "--input", str(path), *own])
    assert capsys.readouterr().out.startswith("2 rows\n")
    for options, message in (
        ([], "--a='review': PATH has no such column; it has 'text,verdict'; if commas separate its cells: \"--del"),
        (own[:6], "PATH, line 2: label 'x=y' is not one of the task's ('1', '5', '3'); add it to --values or correct"),
        ([*own[:6], "--values", "x"], "--values 'x' has no =; write <value in the file>=<label>"),
        ([*own[:6], "--values", "n=worse"], "--values maps 'n' to 'worse'; allowed: 'bad', 'good', or 'ignore' for"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", stars, "--precision", "32", "--input", str(path), *options])
        assert stop.value.code == 1
        assert message in capsys.readouterr().err.replace(str(path), "PATH")


def test_evaluate_scores_names_and_indices_of_labels(adapter, tmp_path, capsys):
    main(["predict", adapter, "--precision", "32", "--text", "a good film", "never again"])
    labels = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    index = ["bad", "good"].index(labels[1])
    path = tmp_path / "gold.csv"
    path.write_text(f"text,label\na good film,{labels[0]}\nnever again,{index}\n")
    main(["evaluate", adapter, "--precision", "32", "--input", str(path)])
    assert "accuracy  1.000  (95% interval 0.342 to 1.000)" in capsys.readouterr().out


@pytest.fixture
def regression(adapter, tmp_path):
    """The same adapter, but of numbers from 0 to 5."""
    folder = tmp_path / "regression"
    shutil.copytree(adapter, folder)
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps(config | {"value_range": [0, 5]}))
    return str(folder)


def test_predict_gives_the_numbers_of_a_regression(regression, capsys):
    main(["predict", regression, "--precision", "32", "--text", "a good film", "never again"])
    for answer in map(json.loads, capsys.readouterr().out.splitlines()):
        assert list(answer) == ["text", "value"]
        assert 0 <= answer["value"] <= 5


def test_evaluate_scores_numbers_by_their_correlations(regression, tmp_path, capsys):
    texts = ["a good film", "never again", "it was dull", "the plot", "fine"]
    main(["predict", regression, "--precision", "32", "--text", *texts])
    values = [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    path = tmp_path / "gold.csv"
    path.write_text("text,label\n" + "".join(f"{t},{v}\n" for t, v in zip(texts, values, strict=True)))
    main(["evaluate", regression, "--precision", "32", "--input", str(path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 rows"
    assert [line.split("  (")[0] for line in lines[1:]] == ["pearson   1.000", "spearman  1.000"]
    path.write_text("text,label\na good film,6\n")
    with pytest.raises(SystemExit):
        main(["evaluate", regression, "--precision", "32", "--input", str(path)])
    assert "gold.csv, line 2: label '6' is not a number from 0 to 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "ADAPTER", "--input", "absent.csv"], "--input: absent.csv does not exist"),
        (["evaluate", "ADAPTER", "--input", "absent.csv"], "--input: absent.csv does not exist"),
        (
            ["predict", "ADAPTER", "--backbone", "./none", "--text", "a"],
            "backbone.path='./none': there is no such folder",
        ),
        (["evaluate", "ADAPTER"], "lpt evaluate needs --input="),
        (["predict", "./absent"], "./absent: there is no such folder"),
        (
            ["predict", "ADAPTER", "--accelerator", "cpu", "--quantization", "nf4", "--text", "a"],
            "backbone.quantization=nf4 needs a GPU",
        ),
        (
            ["predict", "ADAPTER", "--text", "a", "--output", "/dev/null/x.csv"],
            "/dev/null/x.csv could not be written (File exists)",
        ),
    ],
)
def test_bad_input_ends_in_one_line_and_status_1(adapter, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main([adapter if argument == "ADAPTER" else argument for argument in arguments])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_cache_can_be_listed_and_cleared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache_entries, "trunk_folder", lambda: tmp_path)
    entry = tmp_path / "0123456789abcdef"
    entry.mkdir()
    facts = {"backbone": "tiny", "task": "reviews", "split": "train", "rows": 8, "what": "states entering layer 3"}
    (entry / "entry.json").write_text(json.dumps(facts))
    (entry / "numbers.bin").write_bytes(bytes(5000))
    main(["cache", "list"])
    listed = capsys.readouterr().out
    assert "01234567  5 kB  tiny      reviews  train  8     states entering layer 3" in listed
    assert "1 entries, 5 kB" in listed
    for kept in (["--older", "2h"], ["--backbone", "huge"]):
        with suppress(SystemExit):
            main(["cache", "clear", *kept])
        assert (entry / "numbers.bin").exists()
    assert capsys.readouterr().err == "error: --backbone huge: no entry belongs to it; there are tiny\n"
    os.utime(entry / "entry.json", (0, time.time() - 3 * 3600))
    main(["cache", "clear", "--older", "2h", "--backbone", "tiny"])
    assert capsys.readouterr().out.startswith("5 kB removed from ")
    assert list(tmp_path.iterdir()) == []


def test_train_becomes_the_process_of_the_module_that_trains(monkeypatch):
    """Whatever follows is for that process, flags and --help included."""
    started = []
    monkeypatch.setattr("os.execv", lambda *command: started.append(command) or sys.exit(0))
    with pytest.raises(SystemExit):
        main(["train", "-m", "lpt.layer=1,2", "--help"])
    assert started == [(sys.executable, [sys.executable, "-m", "lpt.training", "-m", "lpt.layer=1,2", "--help"])]


def test_a_plugin_is_loaded_before_the_adapter(adapter, tmp_path, capsys):
    plugin = tmp_path / "mine.py"
    plugin.write_text("print('loaded')")
    main(["predict", adapter, "--precision", "32", "--plugin", str(plugin), "--text", "a"])
    assert capsys.readouterr().out.startswith('loaded\n{"text": "a"')


@pytest.fixture
def benches(monkeypatch):
    """The configurations and measurements of benches that would have been run."""
    benches = []
    monkeypatch.setattr("lpt.bench.run.run_bench", lambda *bench: benches.append(bench))
    return benches


def test_a_bench_takes_the_options_of_training_on_top_of_its_own_experiment(benches):
    main(["bench", "lpt.layer=2", "bench.methods=[lora,lpt]"])
    main(["bench", "experiment=bench_smollm2"])
    found = [(config.backbone.name, config.lpt.layer) for config, _ in benches]
    assert found == [("roberta-base-random", 2), ("smollm2-135m", 16)]
    assert [each.candidate for each in benches[0][1]] == ["lora", "lpt"] * 2  # in two number formats


def test_all_complaints_about_a_bench_come_at_once(benches, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "lpt.layr=1", "lpt.layer=0", "bench.methods=[]"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: 3 problems with the configuration:\n"
        "  - lpt.layr=1: there is no option lpt.layr; did you mean 'lpt.layer'?\n"
        "  - lpt.layer=0 must be at least 1 (layers are numbered 1..L)\n"
        "  - bench.methods=[] leaves nothing to measure\n"
    )
    assert benches == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "lpt.layer=1,2"], "lpt: error: unrecognized arguments: -m\n"),
        (["--", "lpt.layer=2", "-m"], "  - -m: only options, <name>=<value>, go here\n"),
        (
            ["lpt.layer=1,2"],
            "  - lpt.layer=1,2: one value goes here; to measure several: bench.vary=lpt.layer bench.values=[1,2]\n",
        ),
    ],
)
def test_a_bench_refuses_several_values_and_flags(benches, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert benches == []


def test_a_job_of_a_slurm_array_answers_its_part(adapter, tmp_path, monkeypatch, capsys):
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"film {i}\n" for i in range(10)))
    command = ["predict", adapter, "--input", str(tmp_path / "in.csv"), "--shard", "slurm"]
    with pytest.raises(SystemExit):
        main(command)
    assert "--shard slurm is for a job of a Slurm array" in capsys.readouterr().err
    answered = []
    for number in (3, 5, 7):
        for name, value in (("ID", number), ("MIN", 3), ("COUNT", 3), ("STEP", 2)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        main(command)
        answered.append([json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()])
    assert [text for part in answered for text in part] == [f"film {i}" for i in range(10)]
    assert [len(part) for part in answered] == [3, 3, 4]
