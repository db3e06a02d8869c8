"""`lpt sweep`: look after sweeps."""

import argparse

from lpt.cli.arguments import Commands, count, folder, positive


def add(commands: Commands) -> None:
    """Add the commands."""
    sweep = commands.add_parser(
        "sweep",
        help="watch and resume sweeps",
        description="Watch and resume a sweep that `lpt train -m` has started (docs/sweeps.md).",
    )
    actions = sweep.add_subparsers(required=True, metavar="action")
    status = actions.add_parser("status", help="show the progress of each point")
    status.set_defaults(command=_status)
    resume = actions.add_parser("resume", help="start what is missing, resume what was interrupted")
    resume.set_defaults(command=_resume, failed_too=False)
    retry = actions.add_parser("retry-failed", help="as resume, and try again what has failed")
    retry.set_defaults(command=_resume, failed_too=True)
    results = actions.add_parser("results", help="show the metrics of every point")
    results.set_defaults(command=_results)
    for action in (status, resume, retry, results):
        action.add_argument("folder", type=folder, help="the sweep folder (hydra.sweep.dir)")
    for action in (resume, retry):
        action.add_argument("--workers", type=positive, help="number of points at a time (default: as started)")
        action.add_argument(
            "--retries", type=count, help="how often a point that fails is tried again (default: as started)"
        )
        action.add_argument(
            "--accept-drift",
            action="store_true",
            help="where defaults have changed since, keep what is completed and continue with today's values",
        )
    results.add_argument("--csv", action="store_true", help="print as CSV")


def _status(arguments: argparse.Namespace) -> None:
    from lpt.sweep.commands import show_status

    show_status(arguments.folder)


def _resume(arguments: argparse.Namespace) -> None:
    from lpt.sweep.commands import resume

    resume(arguments.folder, arguments.workers, arguments.retries, arguments.accept_drift, arguments.failed_too)


def _results(arguments: argparse.Namespace) -> None:
    from lpt.sweep.commands import show_results

    show_results(arguments.folder, arguments.csv)
