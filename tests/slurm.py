"""A stand-in for Slurm on this machine: every task of every node is a process here.

As a program it is `srun --nodes=<n> --ntasks-per-node=<m> --kill-on-bad-exit=1 <command>`.
"""

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


def install(folder: Path) -> str:
    """Put `srun`, and an `sbatch` that starts every job at once, into a folder; returns the PATH that finds them."""
    srun = f'exec "{sys.executable}" "{Path(__file__).absolute()}" "$@"'
    sbatch = """job=$$
script=$(cat "$1")  # now, as Slurm does: submitit moves the file
SLURM_JOB_ID=$job sh -c "$script" > "$1.log" 2>&1 &
echo "Submitted batch job $job"
"""
    for name, script in (("srun", srun), ("sbatch", sbatch)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def main(arguments: list[str]) -> int:
    """The highest exit status of all tasks; once one fails, the others are ended."""
    flags = dict(text.removeprefix("--").split("=") for text in arguments if text.startswith("--"))
    command = arguments[len(flags) :]
    assert flags["kill-on-bad-exit"] == "1"
    own = tasks(int(flags["nodes"]), int(flags["ntasks-per-node"]), int(os.environ["SLURM_JOB_ID"]))
    running = [subprocess.Popen(command, env={**os.environ, **each}) for each in own]
    while any(process.poll() is None for process in running):
        if any(process.poll() for process in running):
            for process in running:
                process.kill()
        time.sleep(0.05)
    return max(process.returncode for process in running)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
