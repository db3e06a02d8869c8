"""What this machine can do: device, number format, memory used."""

import os
import resource
import sys
from pathlib import Path

import torch

from lpt.errors import LptError

DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


def choose_accelerator(accelerator: str, devices: int) -> str:
    """`cpu` or `gpu`; `auto` takes a GPU where there is one.

    Raises:
        LptError: no GPU, or more devices asked for than there are.
    """
    gpus = torch.cuda.device_count()
    if accelerator == "gpu" and not gpus:
        raise LptError("trainer.accelerator=gpu: this machine has no GPU that PyTorch can use; use cpu or auto")
    chosen = "gpu" if gpus and accelerator != "cpu" else "cpu"
    available = gpus if chosen == "gpu" else os.cpu_count() or 1
    if devices > available:
        what = "GPUs" if chosen == "gpu" else "CPU cores"
        raise LptError(f"trainer.devices={devices} is more than this machine has ({available} {what})")
    return chosen


def choose_dtype(precision: str, accelerator: str) -> torch.dtype:
    """The backbone's number format.

    `auto` is bf16 where the hardware multiplies it fast, float32 elsewhere.

    Raises:
        LptError: a format that this hardware cannot compute.
    """
    if precision == "auto":
        return torch.bfloat16 if fast_bf16(accelerator) else torch.float32
    if precision == "bf16" and accelerator == "gpu" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise LptError(
            f"trainer.precision=bf16: {torch.cuda.get_device_name()} cannot compute bf16; use 16, 32 or auto"
        )
    if precision == "16" and accelerator == "cpu":
        raise LptError("trainer.precision=16 needs a GPU; on CPU use bf16, 32 or auto")
    return DTYPES[precision]


def fast_bf16(accelerator: str) -> bool:
    """Whether bf16 matrix products have hardware of their own here."""
    if accelerator == "gpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capability = torch.backends.cpu.get_cpu_capability()
    return "AMX" in capability or bool(_cpu_flags() & {"amx_bf16", "avx512_bf16"})


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def choose_attention(attention: str, accelerator: str) -> str:
    """`eager` or `sdpa`; `auto` is eager on CPU, where sdpa's backward is slow for short texts, sdpa on GPUs."""
    if attention != "auto":
        return attention
    return "eager" if accelerator == "cpu" else "sdpa"


def peak_memory_bytes(accelerator: str) -> int:
    """Most memory this process has held: on the GPU if it used one, else resident."""
    if accelerator == "gpu":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
