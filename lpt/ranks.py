"""The processes of one run, where somebody else starts them: torchrun, srun, or a person on each node.

Each finds its place in its environment, before Lightning is there to ask: the first alone writes, and all of them must
call the run folder the same. The variables are those that Lightning goes by, in its order.
"""

import os
import socket
from collections.abc import Iterator, Mapping

from lpt.errors import LptError

INTERACTIVE = ("bash", "interactive")  # names of Slurm jobs that are terminals: what runs there, srun has not started
OF_SRUN = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def starter() -> str:
    """`torchrun`, `srun` or `hand`: who starts the processes of a run, or at least the first one on each node."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    slurm = "SLURM_NTASKS" in os.environ and "SLURM_PROCID" in os.environ
    return "srun" if slurm and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE else "hand"


def global_rank(devices: int) -> int:
    """This process among all of its run's, from 0, with `devices` of them on each node."""
    match starter():
        case "torchrun":
            return int(os.environ["RANK"])
        case "srun":
            return int(os.environ["SLURM_PROCID"])
        case _:
            return int(os.environ.get("NODE_RANK", 0)) * devices + int(os.environ.get("LOCAL_RANK", 0))


def is_first() -> bool:
    """Whether this process is the first of its run's."""
    return global_rank(devices=1) == 0


def speaks() -> bool:
    """Whether this process tells of what all know: one for all, but by hand, each node has a terminal of its own."""
    return is_first() or starter() == "hand"


def whose() -> str:
    """Where a message is from, unless it is from the first process."""
    return "" if is_first() else f"on {socket.gethostname()}: "


def started_together(nodes: int) -> bool:
    """Whether others have been started along with this process, instead of by it."""
    return (_count() or nodes) > 1


def common_name(clock: str, nodes: int) -> str:
    """What all processes of a run on `nodes` nodes name it by: the time, where there is one clock.

    Raises:
        LptError: there is nothing that all of them know.
    """
    if not started_together(nodes):
        return clock
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")  # torchrun's own word for no id
    if run != "none":
        return f"torchrun-{run}"
    if "SLURM_JOB_ID" in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_STEP_ID', 0)}"
    raise LptError(
        "processes that start apart cannot name the run folder by the time; give hydra.run.dir=<folder on a disk that "
        "all nodes share>"
    )


def problems(nodes: int, devices: int) -> Iterator[str]:
    """Why what was started cannot be a run on `nodes` nodes with `devices` devices each."""
    asked = f"trainer.nodes={nodes} x trainer.devices={devices}"
    count = _count()
    if count is None:
        yield from _problems_by_hand(nodes)
    elif starter() == "torchrun":
        if count != nodes * devices:
            yield (
                f"torchrun has started {count} processes, and {asked} need torchrun --nnodes={nodes} "
                f"--nproc-per-node={devices}"
            )
    else:
        on_each = os.environ.get("SLURM_NTASKS_PER_NODE", "1" if count == 1 else "?")  # Lightning wants it given
        if count != nodes * devices or on_each != str(devices):
            yield (
                f"Slurm has started {count} tasks, {on_each} on each node, and {asked} need srun --nodes={nodes} "
                f"--ntasks-per-node={devices}"
            )


def starting_its_own(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that starts its run's others itself, though it may be in a Slurm job."""
    return {name: value for name, value in environment.items() if name not in OF_SRUN}


def _problems_by_hand(nodes: int) -> Iterator[str]:
    missing = [name for name in BY_HAND if name not in os.environ]
    if nodes > 1 and missing:
        yield (
            f"trainer.nodes={nodes}: this process cannot find the others without {', '.join(missing)}; start all of "
            f"them by srun or torchrun, or one on each node with {', '.join(BY_HAND)} set"
        )
    node = int(os.environ.get("NODE_RANK", 0))
    if not node < nodes:
        yield f"NODE_RANK={node}, but trainer.nodes={nodes}: nodes are numbered from 0"


def _count() -> int | None:
    """How many processes were started; None by hand, where nobody says."""
    variable = {"torchrun": "WORLD_SIZE", "srun": "SLURM_NTASKS"}.get(starter())
    return None if variable is None else int(os.environ[variable])
