"""The command `lpt`: train, use what was trained, measure what it costs, look after sweeps, and report.

Each module has one group of commands, and its `add(commands)` adds their parsers. What a command needs is imported when
it runs, so that `lpt --help` and bad options do not wait for torch.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from lpt import __version__
from lpt.cli import (
    adapter,
    bench,
    cache,
    evaluate,
    export,
    layers,
    predict,
    replay,
    report,
    review,
    runs,
    serve,
    sweep,
    train,
)
from lpt.cli.arguments import Parser
from lpt.cli.completion import SHELLS, PrintCompletion
from lpt.errors import ConfigError, LptError

BROKEN_PIPE, INTERRUPTED = 141, 130  # exit statuses, as shells have them: 128 + SIGPIPE, SIGINT


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run one command.

    Args:
        argv: the arguments; None: those of this process.

    Raises:
        SystemExit: 2 for bad options or a bad configuration, 1 for bad input.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [train.NAME]:
        train.run(words[1:])  # all its options are Hydra's
    arguments = _parser().parse_args(words)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        raise SystemExit(BROKEN_PIPE) from None
    except KeyboardInterrupt as stop:
        print("; ".join(filter(None, ["interrupted", str(stop)])), file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except (LptError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="lpt",
        description="Late Prompt Tuning: train small classifiers over a frozen language model, and use them.",
    )
    parser.add_argument("--version", action="version", version=f"lpt {__version__}")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=PrintCompletion,
        help="print the script that completes lpt in a shell",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (
        train,
        runs,
        predict,
        serve,
        evaluate,
        export,
        review,
        sweep,
        report,
        replay,
        layers,
        adapter,
        bench,
        cache,
    ):
        group.add(commands)
    return parser
