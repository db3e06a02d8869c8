"""`lpt train`: the same as `python train.py` in a checkout."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lpt.cli.arguments import Commands
from lpt.config.place import MODULE

NAME = "train"


def add(commands: Commands) -> None:
    """Add the command to the list of commands; `run` reads its options."""
    train = commands.add_parser(NAME, add_help=False, help="train and test: lpt train --help")
    train.add_argument("train_options", nargs="*")  # for shells to complete


def run(argv: Sequence[str]) -> NoReturn:
    """Become the process that trains.

    A process of its own, started as a module, since Lightning starts those of the other devices by repeating the
    command of this one.
    """
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", MODULE, *argv])
