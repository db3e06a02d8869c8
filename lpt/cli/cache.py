"""`lpt cache`: what is kept on disk of the texts that were read."""

import argparse
import time

from lpt.cli.arguments import Commands, age

FACTS = ("backbone", "task", "split", "rows", "what")


def add(commands: Commands) -> None:
    """Add the commands."""
    cache = commands.add_parser(
        "cache",
        help="list or clear what is cached on disk",
        description="Manage the states, keys and values of texts that are kept on disk for later runs.",
    )
    actions = cache.add_subparsers(required=True, metavar="action")
    actions.add_parser("list", help="show the size of each entry, and what it belongs to").set_defaults(command=_list)
    clear = actions.add_parser("clear", help="remove entries, by default all")
    clear.add_argument("--older", type=age, default=0.0, metavar="AGE", help="last used so long ago: 12h, 30d or 4w")
    clear.add_argument("--backbone", metavar="NAME", help="of this backbone, as lpt cache list names it")
    clear.set_defaults(command=_clear)


def _list(arguments: argparse.Namespace) -> None:
    from rich.markup import escape
    from rich.table import Table

    from lpt.cache.entries import entries, human_bytes, trunk_folder
    from lpt.console import console
    from lpt.sweep.view import show_all

    found = entries(trunk_folder())
    table = Table(box=None, pad_edge=False)
    for heading in ("entry", "size", *FACTS, "last used"):
        table.add_column(heading, no_wrap=True)
    for entry in sorted(found, key=lambda entry: -entry.used):
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)) if entry.facts else "unfinished"
        facts = [escape(str(entry.facts.get(name, "?"))) for name in FACTS]
        table.add_row(entry.place.name[:8], human_bytes(entry.bytes), *facts, used)
    if found:
        show_all(table)
    total = human_bytes(sum(entry.bytes for entry in found))
    console.print(f"{len(found)} entries, {total} in {trunk_folder()}", soft_wrap=True)


def _clear(arguments: argparse.Namespace) -> None:
    from lpt.cache.entries import clear, human_bytes, trunk_folder

    removed = clear(trunk_folder(), arguments.older, arguments.backbone)
    print(f"{human_bytes(removed)} removed from {trunk_folder()}")
