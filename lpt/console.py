"""The console that messages are printed on."""

from rich.console import Console

console = Console(highlight=False)


def say(message: str) -> None:
    """One line."""
    console.print(message, soft_wrap=True, markup=False)
