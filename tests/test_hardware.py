"""Device, number format and attention: what is chosen, and what is refused because the hardware cannot do it."""

import os

import pytest
import torch

from lpt import hardware
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


def test_attention_is_eager_on_cpu_and_sdpa_on_gpus_unless_asked_for():
    assert [hardware.choose_attention("auto", accelerator) for accelerator in ("cpu", "gpu")] == ["eager", "sdpa"]
    assert hardware.choose_attention("sdpa", "cpu") == "sdpa"


def test_peak_memory_is_in_bytes():
    assert hardware.peak_memory_bytes("cpu") > 50e6  # torch alone is that large
