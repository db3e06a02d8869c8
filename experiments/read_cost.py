"""Measure what reading a text once costs: building its cache against one forward pass of the stock model.

    python experiments/read_cost.py [rows]

RoBERTa-base's shape with random weights, 128 tokens per row, layer 7 of 12, in this machine's best number format. The
cache is built as a run builds it: hashing weights, writing files and checking them included.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf

from lpt.backbones.placement import Placement
from lpt.backbones.pretrained import find_pretrained
from lpt.bench.measure import random_rows
from lpt.cache.entries import human_bytes, used_bytes
from lpt.cache.trunk import TrunkCache
from lpt.config.place import CONF_DIR
from lpt.data.batches import EvaluationBatches
from lpt.late_prompt import LatePromptModel

TOKENS = 128


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    torch.manual_seed(0)
    placement = Placement.choose("cpu")
    path = OmegaConf.load(CONF_DIR / "backbone/random/roberta-base.yaml").path
    model = find_pretrained(path).load_model(placement.dtype)
    method = LatePromptModel(model, 7, read_only=True)
    split = random_rows(count, TOKENS, 2, method.backbone)
    batches = [split.collate(items, 0) for items in EvaluationBatches(split.lengths, 32)]
    with torch.no_grad():
        model.base_model(input_ids=batches[0].input_ids)
        started = time.perf_counter()
        for batch in batches:
            model.base_model(input_ids=batch.input_ids)
        stock = time.perf_counter() - started
        method.backbone.use_attention(placement.choose_attention(method.backbone, TOKENS, training=True))
        method.read(batches[0].input_ids)
        started = time.perf_counter()
        for batch in batches:
            method.read(batch.input_ids)
        reading = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cache = TrunkCache("disk", max_bytes=2**40, folder=Path(folder), say=print)
        cache.prepare(method.backbone, {"train": split})
        states = cache.states(method.backbone, split, "train", pad_id=0)
        assert states is not None
        cache.keys_values(method.backbone, split, "train", 0, states)
        built = time.perf_counter() - started
        size = used_bytes(Path(folder))
    print(f"{count} rows of {TOKENS} tokens, {placement.precision}, {torch.get_num_threads()} threads")
    print(f"one forward pass of the stock model, without its LM head: {stock:.2f} s")
    print(f"read, without keeping: {reading:.2f} s, {reading / stock:.2f} times that")
    print(f"read and kept on disk, {human_bytes(size)}: {built:.2f} s, {built / stock:.2f} times that")


if __name__ == "__main__":
    main()
