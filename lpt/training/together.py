"""The processes of a run: whether they do the same, and what to say when one of them is lost."""

import hashlib
import json
import signal
from typing import Any

import pytorch_lightning as pl
import torch.distributed

from lpt.errors import LptError

# What gloo and NCCL say when the other side is gone or silent.
LOST = (
    "Connection reset by peer",
    "Connection closed by peer",
    "Broken pipe",
    "Timed out waiting",
    "Connection refused",
)


def check_agreement(trainer: pl.Trainer, facts: dict[str, Any]) -> None:
    """Compare what the processes of a run are about to do; to be called by each of them.

    Args:
        trainer: whose processes are connected by now.
        facts: what they must have in common, as JSON has it.

    Raises:
        LptError: on every process, if two of them differ.
    """
    if trainer.world_size == 1:
        return
    own = {
        name: hashlib.blake2b(json.dumps(v, default=str).encode(), digest_size=8).hexdigest()
        for name, v in facts.items()
    }
    found: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, own)
    different = [name for name in own if len({each[name] for each in found}) > 1]
    if different:
        rank = next(i for i, each in enumerate(found) if each != found[0])
        raise LptError(
            f"process {rank} of the run has another {' and another '.join(different)} than process 0; see that all "
            "nodes have the same files, options and versions"
        )


def lost_process(trainer: pl.Trainer, error: BaseException) -> LptError | None:
    """What to say of an error that another process of the run has caused by its end; None for any other error."""
    if trainer.world_size == 1 or not isinstance(error, RuntimeError):
        return None
    network = isinstance(error, torch.distributed.DistError)
    if not network and not any(text in str(error) for text in LOST):
        return None
    launcher: Any = trainer.strategy.launcher
    ended = []
    for rank, process in enumerate(getattr(launcher, "procs", []), start=1):
        status = process.poll()
        if status:
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            ended.append(f"process {rank} has ended by {how}")
    told = "; ".join(ended) or "another process of the run has ended or does not answer"
    return LptError(
        f"{told}; what it printed says why (SIGKILL without a reason is mostly a lack of memory: "
        "optim.gradient_accumulation needs less). The progress saved so far is kept, to be resumed"
    )
