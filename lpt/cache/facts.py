"""What became of the trunk cache in a run, as `result.json` has it; without torch, which reports do not need."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheFacts:
    """What became of the trunk cache."""

    mode: str
    # memory, disk or off.
    bytes: int
    built: list[str]
    # Splits whose states were computed.
    reused: list[str]
    # Splits whose states were there already.
    keys_values: bool = False
    # Whether keys and values were kept too; a split is then named twice.
