"""A screen for tests of what a person sees."""

import io
import re

from rich.console import Console


class Terminal(io.StringIO):
    """Takes what is written to a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def console(self) -> Console:
        return Console(file=self, force_terminal=True, width=80, highlight=False, color_system=None)

    def screen(self) -> list[str]:
        """The lines that are on the screen now."""
        lines, place = [""], 0
        for part in re.findall(r"\x1b\[[?\d]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\n":
                place += 1
                lines += [""] * (place + 1 - len(lines))
            elif part == "\x1b[1A":
                place -= 1
            elif part == "\x1b[2K":
                lines[place] = ""
            elif part != "\r" and not part.startswith("\x1b"):
                lines[place] = part  # whole lines, from the left
        return [line.rstrip() for line in lines if line.strip()]
