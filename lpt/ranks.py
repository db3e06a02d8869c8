"""The rank of this process in a run that torchrun, srun, or a person on each node has started.

It is read from the environment, before Lightning is imported: only the first process writes, and all must give the run
folder the same name. The variables, and their order of precedence, are Lightning's.
"""

import os
import socket
from collections.abc import Iterator, Mapping

from lpt.errors import LptError

INTERACTIVE = ("bash", "interactive")  # Slurm jobs that are terminals: srun did not start what runs there
OF_SRUN = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def starter() -> str:
    """Return what starts the processes of a run, or at least the first on each node: `torchrun`, `srun` or `hand`."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    slurm = "SLURM_NTASKS" in os.environ and "SLURM_PROCID" in os.environ
    return "srun" if slurm and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE else "hand"


def global_rank(devices: int) -> int:
    """Return the rank of this process in its run, from 0.

    Args:
        devices: processes per node.
    """
    match starter():
        case "torchrun":
            return int(os.environ["RANK"])
        case "srun":
            return int(os.environ["SLURM_PROCID"])
        case _:
            return int(os.environ.get("NODE_RANK", 0)) * devices + int(os.environ.get("LOCAL_RANK", 0))


def is_first() -> bool:
    """Return whether this is the process of rank 0."""
    return global_rank(devices=1) == 0


def speaks() -> bool:
    """Return whether this process prints errors that all have: rank 0, or, by hand, one on each terminal."""
    return is_first() or starter() == "hand"


def whose() -> str:
    """Return a prefix that names the host, for messages of any process but the first."""
    return "" if is_first() else f"on {socket.gethostname()}: "


def started_together(nodes: int) -> bool:
    """Return whether other processes were started along with this one, instead of by it."""
    return (_count() or nodes) > 1


def common_name(clock: str, nodes: int) -> str:
    """Return a name that all processes of a run agree on: the time, where one process starts the others.

    Args:
        clock: the time, as a name.
        nodes: number of nodes.

    Raises:
        LptError: the processes have nothing in common to name the run by.
    """
    if not started_together(nodes):
        return clock
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")  # torchrun's value for no id
    if run != "none":
        return f"torchrun-{run}"
    if "SLURM_JOB_ID" in os.environ:
        return f"slurm-{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_STEP_ID', 0)}"
    raise LptError(
        "processes that start apart cannot name the run folder by the time; give hydra.run.dir=<folder on a disk that "
        "all nodes share>"
    )


def problems(nodes: int, devices: int) -> Iterator[str]:
    """Yield why the processes that were started cannot be a run on `nodes` nodes with `devices` devices each."""
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
        on_each = os.environ.get("SLURM_NTASKS_PER_NODE", "1" if count == 1 else "?")  # Lightning requires it
        if "SLURM_STEP_ID" not in os.environ and count != 1:
            yield (
                f"this Slurm job has {count} tasks, but srun has not started this process, which would wait for the "
                f"others; start it by srun --nodes={nodes} --ntasks-per-node={devices}, or ask for a job of one task "
                "(#SBATCH --ntasks=1)"
            )
        elif count != nodes * devices or on_each != str(devices):
            yield (
                f"Slurm has started {count} tasks, {on_each} on each node, and {asked} need srun --nodes={nodes} "
                f"--ntasks-per-node={devices}"
            )


def requeued() -> bool:
    """Return whether Slurm has started this job again, after it was preempted or has asked for it."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def starting_its_own(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process that starts the others of its run itself, even inside a Slurm job."""
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
    """The number of processes started; None by hand, where it is unknown."""
    variable = {"torchrun": "WORLD_SIZE", "srun": "SLURM_NTASKS"}.get(starter())
    return None if variable is None else int(os.environ[variable])
