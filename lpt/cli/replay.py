"""`lpt replay`: why a run met a number that is not finite."""

import argparse
from pathlib import Path

from lpt.cli.arguments import Commands, folder
from lpt.errors import LptError


def add(commands: Commands) -> None:
    """Add the command."""
    replay = commands.add_parser(
        "replay",
        help="see why a run met NaN",
        description="Train a run again from its last checkpoint, up to the step whose loss or gradient is not finite, "
        "and show which rows and which module it was. Nothing is written.",
    )
    replay.add_argument("run", type=folder, help="the run folder")
    replay.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="a Python file of your own that the run used"
    )
    replay.set_defaults(command=_replay)


def _replay(arguments: argparse.Namespace) -> None:
    from lpt.config.resolve import resolve
    from lpt.config.resume import has_run, restore

    if not has_run(arguments.run):
        raise LptError(f"{arguments.run} holds no run (.hydra/config.yaml is missing); give a run folder")
    files = [str(Path(file).expanduser().absolute()) for file in arguments.plugin]
    config = resolve(restore(arguments.run, [f"plugins=[{','.join(map(repr, files))}]"] if files else []))
    from lpt.training.replay import replay  # here, so that a wrong folder does not wait for torch

    found = replay(config, arguments.run)
    if found is None:
        print("every loss and gradient was finite this time; on other hardware numbers differ in their last digits")
        return
    print("\n".join(found.lines()))
