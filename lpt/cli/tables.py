"""Tables on the console."""

from rich import box
from rich.table import Table
from rich.text import Text

from lpt.console import console, printable
from lpt.report.text_table import TextTable

UNLIMITED = 10_000  # columns


def print_table(content: TextTable) -> None:
    """Print a table as wide as it needs to be; only its words are wrapped where there is no room."""
    console.print(_rich(content))


def fits(content: TextTable) -> bool:
    """Whether there is room for a table without wrapping."""
    unlimited = console.options.update_width(UNLIMITED)
    return console.measure(_rich(content), options=unlimited).maximum <= console.width


def _rich(content: TextTable) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for j, heading in enumerate(content.headings):
        word = j < content.words
        shown.add_column(Text(heading), justify="left" if word else "right", overflow="fold", no_wrap=not word)
    for i, row in enumerate(content.rows):
        dress = "bold" if i in content.strong else "dim" if i in content.quiet else ""
        shown.add_row(*map(_plain, row), style=dress)
    return shown


def _plain(cell: str) -> Text:
    """A cell as it is: what is in brackets is no markup, and a text cannot steer the terminal."""
    return Text(printable(cell))
