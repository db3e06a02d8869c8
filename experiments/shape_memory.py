"""Memory that matrix products keep, by number format: why a server in bf16 grows until it has seen all shapes.

    python experiments/shape_memory.py [products]

One process for each number format, with oneDNN keeping 1 or 128 kernels. Each computes linear maps of MiniLM's sizes
over 20 to 400 rows, drawn anew each time. One line for each: megabytes at first and after every eighth of the products.
"""

import os
import random
import subprocess
import sys

SIZES = ((384, 1536), (1536, 384), (384, 384))


def measure(dtype: str, products: int) -> None:
    import psutil
    import torch
    import torch.nn.functional as F

    process = psutil.Process()
    maps = [torch.randn(size, dtype=getattr(torch, dtype)) for size in SIZES]
    random.seed(0)
    megabytes = [process.memory_info().rss / 1e6]
    with torch.inference_mode():
        for done in range(1, products + 1):
            rows = random.randint(20, 400)
            for weight in maps:
                F.linear(torch.ones(rows, weight.shape[1], dtype=weight.dtype), weight)
            if done % (products // 8) == 0:
                megabytes.append(process.memory_info().rss / 1e6)
    print(dtype, os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], [round(each) for each in megabytes], flush=True)


def main() -> None:
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    products = sys.argv[1] if len(sys.argv) > 1 else "4000"
    for dtype, kept in (("float32", "1"), ("bfloat16", "1"), ("bfloat16", "128")):
        environment = os.environ | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": kept}
        subprocess.run([sys.executable, __file__, dtype, products], env=environment, check=True)


if __name__ == "__main__":
    main()
