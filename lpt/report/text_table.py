"""A table of a report, the same for page and Markdown."""

from dataclasses import dataclass, field

NONE = "–"


@dataclass
class TextTable:
    """Headings and rows of text.

    Attributes:
        words: how many of the first columns hold words; the others hold numbers.
        strong: rows to print in bold.
        quiet: rows to print in gray.
        marks: (row, column) -> what kind of cell it is, and what there is to know about it.
    """

    headings: list[str]
    rows: list[list[str]]
    words: int = 1
    strong: set[int] = field(default_factory=set)
    quiet: set[int] = field(default_factory=set)
    marks: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return the table in Markdown, each line ended by a newline."""
        marks = ["---"] * self.words + ["---:"] * (len(self.headings) - self.words)
        rows = [
            [f"**{cell}**" if i in self.strong and j < self.words + 1 else cell for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        lines = [self.headings, marks, *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)
