"""The console that messages are printed on."""

from rich.console import Console

console = Console(highlight=False)


def say(message: str) -> None:
    """Print one message, unwrapped and without markup."""
    console.print(message, soft_wrap=True, markup=False)
