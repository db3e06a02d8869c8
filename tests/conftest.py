"""Tests need no network: hub look-ups fail at once instead of waiting for one."""

import os
import tempfile

import pytest
import torch

_cache = tempfile.TemporaryDirectory(prefix="lpt-tests-")
os.environ["LPT_CACHE"] = _cache.name  # never the user's
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # commands that tests start read the package's bytecode
os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)  # tiny models: threads cost more than they bring


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def datasets_cache(tmp_path, monkeypatch):
    """Where `datasets` keeps what it has read, so that no test leaves anything behind."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    yield
    if not bars:
        datasets.enable_progress_bars()
