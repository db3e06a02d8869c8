"""Device, number format, attention, memory: what is chosen and measured, and what the hardware cannot do."""

import ctypes
import multiprocessing
import os
import platform
import resource

import pytest
import torch

from lpt import hardware
from lpt.backbones.names import ATTENTIONS
from lpt.errors import LptError


@pytest.fixture
def machine(monkeypatch):
    """Pretends to be a machine with these GPUs and this CPU."""

    def pretend(gpus: int = 0, bf16: bool = False, cpu: str = "AVX2", flags: str = "", cores: int = 2) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
        monkeypatch.setattr(hardware, "_cpu_flags", lambda: set(flags.split()))
        monkeypatch.setattr(os, "cpu_count", lambda: cores)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "asked", "chosen"), [(0, "auto", "cpu"), (2, "auto", "gpu"), (2, "gpu", "gpu"), (2, "cpu", "cpu")]
)
def test_auto_takes_a_gpu_where_there_is_one(machine, gpus, asked, chosen):
    machine(gpus=gpus)
    assert hardware.choose_accelerator(asked, devices=2) == chosen


@pytest.mark.parametrize(
    ("gpus", "asked", "devices", "complaint"),
    [
        (0, "gpu", 1, "trainer.accelerator=gpu: this machine has no GPU that PyTorch can use; use cpu or auto"),
        (2, "auto", 3, "trainer.devices=3 is more than this machine has (2 GPUs)"),
        (0, "auto", 5, "trainer.devices=5 is more than this machine has (4 CPU cores)"),
        (8, "cpu", 5, "trainer.devices=5 is more than this machine has (4 CPU cores)"),
    ],
)
def test_more_than_there_is_is_refused(machine, gpus, asked, devices, complaint):
    machine(gpus=gpus, cores=4)
    with pytest.raises(LptError) as caught:
        hardware.choose_accelerator(asked, devices)
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("accelerator", "computer", "dtype"),
    [
        ("gpu", {"gpus": 1, "bf16": True}, torch.bfloat16),
        ("gpu", {"gpus": 1, "bf16": False, "flags": "amx_bf16"}, torch.float32),
        ("cpu", {"gpus": 1, "bf16": True}, torch.float32),
        ("cpu", {"cpu": "AVX512", "flags": "avx2 avx512f"}, torch.float32),
        ("cpu", {"cpu": "AVX512", "flags": "avx512f avx512_bf16"}, torch.bfloat16),
        ("cpu", {"cpu": "AVX512", "flags": "amx_bf16 amx_tile"}, torch.bfloat16),
    ],
)
def test_auto_precision_is_bf16_only_where_hardware_multiplies_it(machine, accelerator, computer, dtype):
    machine(**computer)
    assert hardware.choose_dtype("auto", accelerator) is dtype


def test_a_precision_that_was_asked_for_is_taken_where_it_is_possible(machine):
    machine(gpus=1, bf16=True)
    for accelerator in ("cpu", "gpu"):
        assert hardware.choose_dtype("32", accelerator) is torch.float32
        assert hardware.choose_dtype("bf16", accelerator) is torch.bfloat16
    assert hardware.choose_dtype("16", "gpu") is torch.float16


def test_a_precision_that_is_impossible_is_refused(machine):
    machine(gpus=1, bf16=False)
    with pytest.raises(LptError, match=r"^trainer\.precision=bf16: Tesla T4 cannot compute bf16; use 16, 32 or auto$"):
        hardware.choose_dtype("bf16", "gpu")
    with pytest.raises(LptError, match=r"^trainer\.precision=16 needs a GPU; on CPU use bf16, 32 or auto$"):
        hardware.choose_dtype("16", "cpu")


def test_the_cpu_is_asked_for_its_flags_only_where_it_lists_them(monkeypatch):
    monkeypatch.setattr("lpt.hardware.Path.read_text", lambda self: "model name : x\nflags\t\t: fpu amx_bf16\n")
    assert "amx_bf16" in hardware._cpu_flags()

    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr("lpt.hardware.Path.read_text", missing)
    assert hardware._cpu_flags() == set()


@pytest.mark.parametrize(
    ("accelerator", "dtype", "length", "dropout", "chosen"),
    [
        ("gpu", torch.float32, 8, 0.0, "sdpa"),
        ("gpu", torch.bfloat16, 8, 0.1, "sdpa"),
        ("cpu", torch.float32, 255, 0.0, "lean"),
        ("cpu", torch.float32, 256, 0.0, "sdpa"),
        ("cpu", torch.bfloat16, 1023, 0.0, "lean"),
        ("cpu", torch.bfloat16, 1024, 0.0, "sdpa"),
        ("cpu", torch.float32, 4096, 0.1, "lean"),
        ("cpu", torch.bfloat16, 4096, 0.1, "lean"),
    ],
)
def test_auto_attention_is_sdpa_on_gpus_and_lean_on_cpus_but_for_long_texts_without_dropout(
    accelerator, dtype, length, dropout, chosen
):
    assert hardware.choose_attention("auto", accelerator, dtype, length, dropout) == chosen
    for asked in ATTENTIONS:
        assert hardware.choose_attention(asked, accelerator, dtype, length, dropout) == asked
    assert hardware.choose_attention("auto", accelerator, dtype, length, dropout, ("eager",)) == "eager"


def test_an_attention_that_the_backbone_lacks_is_refused_with_those_it_has():
    with pytest.raises(LptError, match=r"^backbone.attention=sdpa: .* in its own way; use auto or eager$"):
        hardware.choose_attention("sdpa", "cpu", torch.float32, 40, available=("eager",))


def test_compiling_without_a_compiler_is_refused_by_the_options_name(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(LptError, match=r"^trainer\.compile=true needs a C\+\+ compiler"):
        hardware.check_compiler()
    with monkeypatch.context() as patch:
        patch.setenv("CXX", "/opt/cc")
        hardware.check_compiler()
    monkeypatch.setattr("shutil.which", {"clang++": "/usr/bin/clang++"}.get)
    hardware.check_compiler()


def test_peak_memory_is_in_bytes():
    assert hardware.peak_memory_bytes("cpu") > 50e6  # torch alone is that large


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system never forgets a peak")
def test_peak_memory_after_a_reset_forgets_what_was_freed_before():
    large = torch.ones(50_000_000)
    seen = hardware.peak_memory_bytes("cpu")
    del large
    held = hardware.reset_peak_memory("cpu")
    assert seen > held + 190e6
    assert hardware.peak_memory_bytes("cpu") < held + 20e6
    torch.ones(10_000_000)
    assert held + 35e6 < hardware.peak_memory_bytes("cpu") < held + 60e6


def fetched_pages(results):
    """Pages fetched from the system by five steps that hold 96 MB each: by itself, then with freed memory kept."""
    ctypes.CDLL("libc.so.6").mallopt(-3, 2**17)  # as a new process has it: larger blocks go back when freed
    for prepare in (lambda: None, hardware.keep_freed_memory):
        prepare()
        for step in range(10):
            if step == 5:  # the heap has settled
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            held = [torch.ones(1_000_000) for _ in range(24)]
            del held
        results.put(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_step():
    context = multiprocessing.get_context("fork")  # the setting stays in that process
    results = context.Queue()
    process = context.Process(target=fetched_pages, args=(results,))
    process.start()
    fetched_anew, fetched_when_kept = (results.get(timeout=60) for _ in range(2))
    process.join(timeout=60)
    assert fetched_when_kept < 200 < fetched_anew  # some, for what Python does in between; 240 where pages are huge


def test_keeping_memory_does_nothing_where_the_c_library_is_another(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    hardware.keep_freed_memory()
    assert hardware.reset_peak_memory("cpu") > 50e6


def test_the_matmul_rate_is_the_best_over_shapes_in_flop_per_second(monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))  # every product takes a second
    assert hardware.matmul_rate(torch.float32, "cpu", [(2, 3, 5), (4, 8, 16), (1, 1, 1)]) == 2 * 4 * 8 * 16
    monkeypatch.undo()
    assert hardware.matmul_rate(torch.bfloat16, "cpu", [(32, 32, 32)]) > 0


@pytest.mark.parametrize(
    ("asked", "accelerator", "rows", "length", "micro_batches"),
    [
        (None, "cpu", 16, 133, 2),
        (None, "cpu", 16, 32, 1),
        (None, "cpu", 4, 5000, 4),  # a row is the least there is
        (None, "gpu", 64, 512, 1),
        (3, "cpu", 16, 32, 3),
        (3, "gpu", 16, 32, 3),
    ],
)
def test_micro_batches_on_a_cpu_are_of_about_a_thousand_tokens(asked, accelerator, rows, length, micro_batches):
    assert hardware.choose_gradient_accumulation(asked, accelerator, rows, length) == micro_batches


def test_the_hardware_is_told_with_what_it_can(monkeypatch):
    monkeypatch.setattr(hardware, "_cpu_info", lambda: "model name\t: Fast 9000\nflags\t\t: fpu amx_bf16 sse\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    told = {"device": "Fast 9000, AVX512, amx_bf16", "devices": 2, "threads": torch.get_num_threads()}
    assert hardware.describe_hardware("cpu", 2) == told


def test_gpus_are_told_by_their_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert hardware.describe_hardware("gpu", 4) == {"device": "NVIDIA H200", "devices": 4, "threads": None}
