"""Tests need no network: hub look-ups fail at once instead of waiting for one."""

import os
import tempfile

import pytest
import torch

_cache = tempfile.TemporaryDirectory(prefix="lpt-tests-")
os.environ["LPT_CACHE"] = _cache.name  # never the user's
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)  # tiny models: threads cost more than they bring


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
