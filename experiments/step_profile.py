"""Show what a read-only training step spends its time on, and whether it waits for data.

    python experiments/step_profile.py [override ...]

Profiles five steps of a bench candidate after its timed ones: RoBERTa-base's shape, 16 x 128 tokens, layer 7 of 12,
P=5, npg on cached keys and values, unless overrides say otherwise. Prints shares of the time of a step by kind of work.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile

from lpt.bench import measure as measuring
from lpt.config.bench import measurements
from lpt.config.command_line import compose_config
from lpt.data.batches import Batch

STEPS = 5
KINDS = {  # of PyTorch's operators
    "matrix products of the layers": ("aten::addmm", "aten::mm"),
    "attention: products": ("aten::bmm", "aten::baddbmm_"),
    "attention: keys and values of the text put together": ("aten::copy_",),
    "elementwise and norms": ("gelu", "softmax", "layer_norm", "aten::mul", "aten::add", "aten::cat", "index"),
    "optimizer": ("adamw", "AdamW", "zero_grad"),
}
waited: list[float] = []


def main() -> None:
    """Measure and print."""
    defaults = ["experiment=bench_roberta_base", "bench.methods=[lpt_read_only_cached]", "bench.precisions=[auto]"]
    (measurement,) = measurements(compose_config([*defaults, *sys.argv[1:]]))
    batches, timing = measuring._batches, measuring._time

    def watched(*arguments: Any) -> Iterator[Batch]:
        made = batches(*arguments)
        while True:
            started = time.perf_counter()
            batch = next(made)
            waited.append(time.perf_counter() - started)
            yield batch

    def profiled(step: Callable[[], None], steps: int, accelerator: str) -> tuple[list[float], int]:
        found = timing(step, steps, accelerator)
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(STEPS):
                step()
        spent: dict[str, float] = defaultdict(float)
        for event in recorded.key_averages():
            kind = next((kind for kind, names in KINDS.items() if any(n in event.key for n in names)), "the rest")
            spent[kind] += event.self_cpu_time_total
        total = sum(spent.values())
        for kind, microseconds in sorted(spent.items(), key=lambda item: -item[1]):
            print(f"{microseconds / total:6.1%}  {kind}")
        return found

    measuring._batches, measuring._time = watched, profiled
    result = measuring.measure(measurement.candidate, measurement.config)
    step, wait = result["step_seconds"], sorted(waited[1:])[len(waited) // 2]
    what = f"{measurement.candidate}, {result['precision']}"
    print(f"{what}: {step * 1e3:.1f} ms per step, {wait * 1e3:.2f} ms of it waiting for data")


if __name__ == "__main__":
    main()
