"""`lpt report`: what the runs under a folder say together."""

import argparse
import sys
from pathlib import Path

from lpt.cli.arguments import Commands, folder
from lpt.files import check_folder


def add(commands: Commands) -> None:
    """Add the command."""
    report = commands.add_parser(
        "report",
        help="compare the runs under a folder",
        description="Turn the runs under a folder into one HTML page, a Markdown file, and figures: scores over seeds "
        "with their uncertainty, the differences that exceed chance, quality against cost, and what is missing.",
    )
    report.add_argument("folder", type=folder, help="a folder with runs at any depth, or a single run")
    report.add_argument("--output", type=Path, help="the folder to write to (default: report/ in the given folder)")
    report.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        metavar="option=value",
        help="the configuration to compare with, as in --baseline method=lora (default: the best)",
    )
    report.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> None:
    check_folder(arguments.folder)
    from lpt.report.words import findings, headline  # here, so that a wrong folder does not wait for matplotlib
    from lpt.report.write import write_report

    study, page = write_report(arguments.folder, arguments.output, arguments.baseline)
    print("\n".join([headline(study), *findings(study)]))
    if study.gaps:
        print(f"missing or failed: {len(study.gaps)}, listed on the page")
    for caution in study.cautions:
        print(f"take care: {caution}", file=sys.stderr)
    print(f"in {page}")
