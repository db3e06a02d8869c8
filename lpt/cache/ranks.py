"""The processes of one run that build a cache together."""

from typing import Any, Protocol


class Ranks(Protocol):
    """Several processes, as Lightning's strategies know them."""

    global_rank: int
    world_size: int
    local_rank: int
    # On its node.
    node_rank: int
    num_nodes: int

    def barrier(self, name: str | None = None) -> None:
        """Wait until every process is here."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """What the process with global rank `src` has given."""

    def reduce_boolean_decision(self, decision: bool) -> bool:
        """Whether every process has decided so."""


class Alone:
    """One process."""

    global_rank, world_size, local_rank, node_rank, num_nodes = 0, 1, 0, 0, 1

    def barrier(self, name: str | None = None) -> None:
        """Do not wait: everyone is here."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """The same object."""
        return obj

    def reduce_boolean_decision(self, decision: bool) -> bool:
        """The same decision."""
        return decision
