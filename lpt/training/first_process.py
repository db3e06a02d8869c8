"""Which process of a run speaks and writes files: the first one. The others compute the same in silence."""

from pytorch_lightning.utilities import rank_zero_only

from lpt.console import say as say_anyway

only_first_process = rank_zero_only  # decorator: elsewhere the function returns None


def announce_rank(rank: int) -> None:
    """Tell Lightning this process's place, from 0: where processes were started by hand, it would learn it late."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def is_first_process() -> bool:
    """Whether this process is the one that speaks."""
    return getattr(rank_zero_only, "rank", 0) == 0


say = only_first_process(say_anyway)
