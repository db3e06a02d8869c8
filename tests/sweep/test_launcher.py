"""What `python train.py -m` enters into a ledger, by the real command."""

import subprocess
import sys

import pytest
from experiment import REPOSITORY

from lpt.sweep.ledger import Ledger

pytestmark = pytest.mark.e2e


def test_points_are_not_added_where_a_default_has_changed_since(tmp_path):
    (tmp_path / "mine" / "optim").mkdir(parents=True)
    folder = tmp_path / "sweep"

    def add(default: str, seed: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / "mine" / "optim" / "own.yaml").write_text(f"lr: {default}")
        line = f"-m --config-dir mine optim=own seed={seed} backbone.path=./none hydra.launcher.retries=0"
        command = [sys.executable, str(REPOSITORY / "train.py"), *line.split(), f"hydra.sweep.dir={folder}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert "1 point: 1 failed" in add("0.001", seed=1).stdout
    refused = add("0.002", seed=2)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {folder} was started with other defaults")
    assert refused.stderr.endswith(": optim.lr: 0.001 -> 0.002\n")
    assert len(Ledger(folder).rows()) == 1
