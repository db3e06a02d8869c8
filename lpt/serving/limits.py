"""What a server takes of one request, and of all together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most of each."""

    texts: int = 256
    # In a request.
    characters: int = 100_000
    # Of a text; the model reads the first few thousand, and truncates the rest.
    megabytes: float = 4.0
    # Of a request's body.
    batch_rows: int = 64
    # Answered together, of several requests; a row is a text for a task.
    waiting_rows: int = 4096
    # Waiting; more get 429.

    @property
    def bytes(self) -> int:
        """Of a request's body."""
        return int(self.megabytes * 1e6)
