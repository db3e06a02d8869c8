"""What the tests of all loggers share: one experiment per file, no key of the user's, and runs that are interrupted."""

import json

import pytest
from experiment import make_experiment

from lpt.training.module import PromptModule


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("experiment"), "llama")


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    """W&B finds no key, neither in the environment nor at home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture
def interrupted(experiment):
    """Runs an experiment that dies in its second epoch, four steps after its last checkpoint."""

    def die(self, outputs, batch, batch_idx):
        if self.global_step == 10:
            raise RuntimeError("power cut")

    def run(name, *options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PromptModule, "on_train_batch_end", die)
            with pytest.raises(RuntimeError, match="power cut"):
                experiment.run(name, *options)

    return run


@pytest.fixture(scope="module")
def written_predictions(experiment):
    """Reads what a run has written of a split."""

    def read(name, split="test"):
        text = (experiment.run_dir(name) / "predictions" / f"{split}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    return read


@pytest.fixture(scope="session")
def most_telling():
    """Sorts written predictions: the most confident mistakes first, then what was right by the least."""

    def key(row):
        confidence, right = max(row["probabilities"].values()), row["gold"] == row["predicted"]
        return right, confidence if right else -confidence

    return lambda rows: sorted(rows, key=key)


@pytest.fixture(scope="session")
def logged_columns():
    """Columns of `metrics.csv` -> how many values two epochs of six steps leave in it."""
    of_a_step = ("loss", "grad_norm", "prompt_norm_ratio", "examples_per_second", "peak_memory_gb")
    steps = {"lr": 12, **{f"train/{name}": 12 for name in of_a_step}}
    return steps | {"validation/loss": 2, "validation/accuracy": 2}
