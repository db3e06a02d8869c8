"""A stand-in for Slurm on this machine: every task of every node is a process here.

As a program it is `srun`, with the flags that submitit gives it, or lpt.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def tasks(nodes: int, on_each: int, job: int) -> list[dict[str, str]]:
    """What srun sets for each task; the port too, as tests that run side by side have the same job."""
    shared = {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS": str(nodes * on_each),
        "SLURM_NTASKS_PER_NODE": str(on_each),
        "MASTER_PORT": free_port(),
    }
    return [
        shared | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i % on_each), "SLURM_NODEID": str(i // on_each)}
        for i in range(nodes * on_each)
    ]


SBATCH = """
script=$(cat "$1")  # now, as Slurm does: submitit moves the file
set -m  # a process group of its own, to be canceled
sh -c 'while [ -e "$1" ]; do sleep 0.02; done; SLURM_JOB_ID=$$ exec sh -c "$2"' \\
    sh "$slurm/full" "$script" < /dev/null > "$1.log" 2>&1 &
echo $! >> "$slurm/jobs"
echo "Submitted batch job $!"
"""
SCANCEL = 'kill -KILL -- "-$1" 2> /dev/null; true'
SACCT = """
echo "JobID|State|NodeList"
for job in "$@"; do
    case $job in *[!0-9]*) continue ;; esac
    case $(ps -o stat= -p "$job") in ""|Z*) state=COMPLETED ;; *) state=RUNNING ;; esac
    echo "$job|$state|here"
done
"""


def install(folder: Path) -> str:
    """Put Slurm's commands into a folder; returns the PATH that finds them.

    `sbatch` starts every job at once or, while there is a file `full` in the folder, when that is gone. The ids of all
    jobs are in the file `jobs`.
    """
    srun = f'exec "{sys.executable}" "{Path(__file__).absolute()}" "$@"'
    for name, script in {"srun": srun, "sbatch": SBATCH, "scancel": SCANCEL, "sacct": SACCT}.items():
        replace(folder, name, script)
    return f"{folder}:{os.environ['PATH']}"


def replace(folder: Path, name: str, script: str) -> None:
    """Have a command of Slurm do something else."""
    (folder / name).write_text(f'#!/bin/bash\nslurm=$(dirname "$0")\n{script}\n')
    (folder / name).chmod(0o755)


def main(arguments: list[str]) -> int:
    """The highest exit status of all tasks."""
    srun = argparse.ArgumentParser("srun")
    srun.add_argument("--nodes", type=int, default=1)
    srun.add_argument("--ntasks-per-node", type=int, default=1)
    srun.add_argument("--kill-on-bad-exit", type=int, default=0)
    srun.add_argument("--unbuffered", action="store_true")
    srun.add_argument("--output")  # here all of it goes to the job's log
    srun.add_argument("--error")
    srun.add_argument("command", nargs=argparse.REMAINDER)
    flags = srun.parse_args(arguments)
    own = tasks(flags.nodes, flags.ntasks_per_node, int(os.environ["SLURM_JOB_ID"]))
    running = [subprocess.Popen(flags.command, env={**os.environ, **each}) for each in own]
    while any(process.poll() is None for process in running):
        if flags.kill_on_bad_exit and any(process.poll() for process in running):
            for process in running:
                process.kill()
        time.sleep(0.05)
    return max(process.returncode for process in running)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
