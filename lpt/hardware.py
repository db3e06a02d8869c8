"""What this machine can do: device, number format, memory used."""

import ctypes
import gc
import math
import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from lpt.backbones.names import ATTENTIONS, AUTO, EAGER, LEAN, PRECISIONS, SDPA
from lpt.errors import LptError

LONG_TEXT = 256  # tokens from which sdpa is the faster attention on a CPU in float32; in bf16, four times as many
MICRO_BATCH_TOKENS = 1200  # about; from which matrix products on a CPU are no faster for being larger
BF16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}  # of processors that multiply bf16 fast


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
    if precision == AUTO:
        return torch.bfloat16 if fast_bf16(accelerator) else torch.float32
    if precision == "bf16" and accelerator == "gpu" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise LptError(
            f"trainer.precision=bf16: {torch.cuda.get_device_name()} cannot compute bf16; use 16, 32 or auto"
        )
    if precision == "16" and accelerator == "cpu":
        raise LptError("trainer.precision=16 needs a GPU; on CPU use bf16, 32 or auto")
    dtype: torch.dtype = getattr(torch, PRECISIONS[precision])
    return dtype


def fast_bf16(accelerator: str) -> bool:
    """Whether bf16 matrix products have hardware of their own."""
    return bf16_hardware(accelerator) is not None


def bf16_hardware(accelerator: str) -> str | None:
    """What multiplies bf16 fast: `GPU`, or of a processor `AMX` or `AVX512-BF16`; None where nothing does."""
    if accelerator == "gpu":
        return "GPU" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if "AMX" in torch.backends.cpu.get_cpu_capability():
        return BF16_FLAGS["amx_bf16"]
    flags = _cpu_flags()
    return next((name for flag, name in BF16_FLAGS.items() if flag in flags), None)


def describe_device(accelerator: str, processes: int) -> str:
    """The devices of a run with one process for each, in words: `2 CPU cores`, `4 x NVIDIA H200`."""
    if accelerator == "gpu":
        name = torch.cuda.get_device_name()
        return name if processes == 1 else f"{processes} x {name}"
    threads = torch.get_num_threads()
    cores = f"{threads} CPU core{'' if threads == 1 else 's'}"
    return cores if processes == 1 else f"{processes} processes with {cores} each"


def describe_hardware(accelerator: str, devices: int) -> dict[str, Any]:
    """What times are measured on: the device's name, how many, and on a CPU the threads of each process.

    A processor's name tells little of what it can, so that goes with it: `AMD EPYC, AVX512, amx_bf16`.
    """
    if accelerator == "gpu":
        return {"device": torch.cuda.get_device_name(), "devices": devices, "threads": None}
    brand = re.search(r"^model name\s*: (.+)$", _cpu_info(), re.MULTILINE)
    name = brand[1] if brand else platform.machine()
    abilities = [torch.backends.cpu.get_cpu_capability(), *sorted(_cpu_flags() & BF16_FLAGS.keys())]
    return {"device": ", ".join([name, *abilities]), "devices": devices, "threads": torch.get_num_threads()}


def _cpu_flags() -> set[str]:
    return {flag for line in _cpu_info().splitlines() if line.startswith("flags") for flag in line.split()}


def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return ""


def choose_attention(
    attention: str,
    accelerator: str,
    dtype: torch.dtype,
    length: float,
    dropout: float = 0.0,
    available: Sequence[str] = ATTENTIONS,
) -> str:
    """`eager`, `sdpa` or `lean`, for texts of about `length` tokens and this dropout of attention weights.

    `auto` is what `experiments/cost.md` found fastest: sdpa on GPUs; lean on a CPU, but for long texts without
    dropout, where sdpa has a fast kernel. Eager where the backbone's family lacks that: `available` is what it has.

    Raises:
        LptError: an attention asked for that is not available.
    """
    if attention != AUTO:
        if attention not in available:
            raise LptError(
                f"backbone.attention={attention}: this backbone's family computes attention in its own way; use "
                f"{' or '.join((AUTO, *available))}"
            )
        return attention
    long = length >= (LONG_TEXT if dtype is torch.float32 else 4 * LONG_TEXT)
    fastest = SDPA if accelerator == "gpu" or (long and not dropout) else LEAN
    return fastest if fastest in available else EAGER


def choose_gradient_accumulation(asked: int | None, accelerator: str, rows: int, length: float) -> int:
    """Micro-batches per step, for `rows` rows per device of about `length` tokens, prompt included.

    On a CPU, micro-batches of a thousand tokens are as fast as larger ones (`experiments/cost.md`) and hold less
    memory; on GPUs, large ones are faster.
    """
    if asked is not None:
        return asked
    return 1 if accelerator == "gpu" else min(rows, math.ceil(rows * length / MICRO_BATCH_TOKENS))


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, instead of fetching every page from the system again.

    That fetching is a tenth of a step on a CPU. Does nothing where the C library is not glibc.
    """
    trim_threshold, mmap_threshold, largest = -1, -3, 32 * 2**20
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, largest)
        libc.mallopt(trim_threshold, 2**30)


def check_compiler() -> None:
    """Raises LptError where torch.compile has nothing to compile with."""
    compilers = ("c++", "g++", "clang++", "gcc", "clang")
    if not any(map(shutil.which, compilers)) and "CXX" not in os.environ:
        raise LptError(
            "trainer.compile=true needs a C++ compiler (g++ or clang++) on the PATH; install one, or remove it"
        )


def peak_memory_bytes(accelerator: str) -> int:
    """Most memory this process has held, since `reset_peak_memory` if that was called: on the GPU, else resident."""
    if accelerator == "gpu":
        return torch.cuda.max_memory_allocated()
    try:  # Linux: unlike getrusage, without what the process that started this one held
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak_memory(accelerator: str) -> int:
    """Let `peak_memory_bytes` start anew, where the system can; returns the bytes held now."""
    gc.collect()
    if accelerator == "gpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):  # not Linux
        Path("/proc/self/clear_refs").write_text("5")
    held: int = psutil.Process().memory_info().rss
    return held


def matmul_rate(dtype: torch.dtype, accelerator: str, shapes: Iterable[tuple[int, int, int]]) -> float:
    """FLOP per second of this machine's matrix products: the best over `(M, K, N)` shapes and repetitions."""
    device = "cuda" if accelerator == "gpu" else "cpu"
    best = 0.0
    for m, k, n in shapes:
        a, b = torch.ones(m, k, dtype=dtype, device=device), torch.ones(n, k, dtype=dtype, device=device)
        for _ in range(8):
            wait(accelerator)
            started = time.perf_counter()
            torch.nn.functional.linear(a, b)
            wait(accelerator)
            best = max(best, 2 * m * k * n / (time.perf_counter() - started))
    return best


def wait(accelerator: str) -> None:
    """Until what was given to the GPU is done, so that a clock tells the truth."""
    if accelerator == "gpu":
        torch.cuda.synchronize()
