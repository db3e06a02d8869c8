"""Where the configuration files are, and what starts a training run: in a checkout, or installed.

A wheel carries `conf/` as `lpt/conf`; a checkout, and an editable install of it, has `conf/` beside the package.
"""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = (PACKAGE / "conf").is_dir()
CONF_DIR = PACKAGE / "conf" if INSTALLED else PACKAGE.parent / "conf"
MODULE = "lpt.training"


def train_program() -> list[str]:
    """The start of a command line that trains, from any working directory.

    A checkout need not be installed, so it is started by its script, which finds the package beside it.
    """
    return [sys.executable, *(["-m", MODULE] if INSTALLED else [str(CONF_DIR.parent / "train.py")])]


def typed_program() -> list[str]:
    """What a person types to start this process again."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m lpt.training, also behind `lpt train`
        return ["lpt", "train"]
    return ["python", sys.argv[0]]
