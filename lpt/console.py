"""Where people are told things."""

from rich.console import Console

console = Console(highlight=False)
