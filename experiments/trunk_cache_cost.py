"""Measure what trunk caches cost: the time to build those of all layers against one forward pass, and their size.

    python experiments/trunk_cache_cost.py [rows ...]

RoBERTa-base's shape with random weights, 128 tokens per row, in this machine's best number format. Each layer's cache
is built as a run builds it: hashing weights, checking and writing files included. From layer 2 on, a cache starts from
the one of the layer below. Writes `trunk_cache_cost.png` beside this file.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from rich.progress import track

from lpt.backbones.placement import Placement
from lpt.backbones.pretrained import find_pretrained
from lpt.backbones.split import SplitBackbone
from lpt.bench.measure import random_rows
from lpt.cache.entries import entries
from lpt.cache.trunk import TrunkCache
from lpt.config.schema import CONF_DIR
from lpt.data.batches import EvaluationBatches

TOKENS = 128


def measure(backbone: SplitBackbone, rows: int) -> tuple[float, float, int]:
    """Return the seconds of one forward pass, the seconds of all layers' caches, and the bytes of one layer's cache."""
    split = random_rows(rows, TOKENS, 2, backbone)
    started = time.perf_counter()
    with torch.no_grad():
        for items in EvaluationBatches(split.lengths, 32):
            batch = split.collate(items, 0)
            h = backbone.embed(batch.input_ids, batch.attention_mask)
            backbone.run(h, batch.attention_mask, 1, backbone.num_layers)
    forward = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for layer in range(1, backbone.num_layers + 1):
            cache = TrunkCache("disk", max_bytes=2**40, folder=Path(folder), say=lambda message: None)
            split_at = SplitBackbone(backbone.model, layer)
            cache.prepare(split_at, {"train": split})
            assert cache.states(split_at, split, "train", pad_id=0) is not None
        caches = time.perf_counter() - started
        size = entries(Path(folder))[0].bytes
    return forward, caches, size


def main() -> None:
    rows = [int(text) for text in sys.argv[1:]] or [64, 128, 256, 512]
    torch.manual_seed(0)
    placement = Placement.choose("cpu")
    path = OmegaConf.load(CONF_DIR / "backbone/random/roberta-base.yaml").path
    backbone = SplitBackbone(find_pretrained(path).load_model(placement.dtype))
    backbone.use_attention(placement.choose_attention(backbone, TOKENS))
    measured = [measure(backbone, count) for count in track(rows, transient=True)]
    print("| rows | one forward pass, s | caches of all layers, s | ratio | one layer's cache, MB |")
    print("|---:|---:|---:|---:|---:|")
    for count, (forward, caches, size) in zip(rows, measured, strict=True):
        print(f"| {count} | {forward:.1f} | {caches:.1f} | {caches / forward:.2f} | {size / 1e6:.1f} |")

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    seconds, megabytes = figure.subplots(1, 2)
    seconds.plot(rows, [caches for _, caches, _ in measured], "o-", color="#0072B2", label="caches of all 12 layers")
    seconds.plot(rows, [forward for forward, _, _ in measured], "o--", color="#D55E00", label="one forward pass")
    megabytes.plot(rows, [size / 1e6 for _, _, size in measured], "o-", color="#0072B2")
    seconds.legend(frameon=False)
    for axes, title in ((seconds, "seconds"), (megabytes, "MB of one layer's cache")):
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel(f"rows of {TOKENS} tokens")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
