"""One contestant measured, in a process of its own, so that its memory is its own.

    python -m lpt.bench.measure <method> <configuration, JSON> <where to write the result, JSON>

B batch, T tokens, H hidden size.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from lpt.backbones.names import EAGER, LEAN
from lpt.backbones.placement import Placement
from lpt.backbones.pretrained import find_pretrained
from lpt.backbones.split import SplitBackbone
from lpt.bench.contestants import STOCK, build_contestant
from lpt.cache.trunk import TrunkCache
from lpt.config.resolve import resolve
from lpt.config.schema import Config
from lpt.data.batches import Batch, EncodedSplit, RaggedStates
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded
from lpt.errors import LptError
from lpt.hardware import (
    check_compiler,
    choose_gradient_accumulation,
    keep_freed_memory,
    matmul_rate,
    peak_memory_bytes,
    reset_peak_memory,
    wait,
)
from lpt.methods import trains_backbone

BATCHES = 4  # different ones, so that nothing is served from a warm cache of the last step
UNTIMED = 2  # steps before those that are timed


def measure(method: str, config: Config) -> dict[str, Any]:
    """Seconds, memory and arithmetic of `method`'s steps.

    Raises:
        LptError: what this machine or this backbone cannot do.
    """
    bench, optim = config.bench, config.optim
    # Weights that are trained are measured in float32, and without autocast.
    trains_weights = method not in STOCK and trains_backbone(config.method.name)
    placement = Placement.choose(config.trainer.accelerator, "32" if trains_weights else config.trainer.precision)
    accelerator, device, dtype = placement.accelerator, placement.device, placement.dtype
    if accelerator == "cpu":
        keep_freed_memory()
    if config.trainer.compile:
        check_compiler()
    if config.backbone.quantization is not None:
        raise LptError(f"lpt bench measures backbones as they are, without {config.backbone.quantization}; leave it")
    torch.manual_seed(config.seed)
    model = find_pretrained(config.backbone.path, config.backbone.revision).load_model(dtype).to(device)
    anatomy = SplitBackbone(model, layer=1)
    if bench.tokens > anatomy.max_length:
        raise LptError(f"bench.tokens={bench.tokens} is more than {config.backbone.name} allows ({anatomy.max_length})")
    training = bench.step == "train"
    attention = placement.choose_attention(anatomy, bench.tokens, config.backbone.attention, training)
    if attention == LEAN and method in STOCK:
        attention = EAGER  # the faster of what rivals have
    anatomy.use_attention(attention)
    backbone_tensors = {id(p): float(p.sum()) for p in model.parameters()}  # read: mapped files are in memory now
    label_ids = list(range(10, 10 + bench.labels))
    contestant: Any = build_contestant(method, model, config, label_ids).to(device)
    _load_libraries()
    own = [p for p in contestant.parameters() if id(p) not in backbone_tensors]
    loaded = reset_peak_memory(accelerator) - sum(p.nbytes for p in own)

    split = random_rows(optim.batch_size * BATCHES, bench.tokens, bench.labels, anatomy)
    # Below layer 1 there is nothing to cache: to read the embedding is the same.
    cached = method.endswith("_cached") and contestant.method.backbone.layer > 1
    states = _states(contestant.method.backbone, split) if cached else None
    batches = _batches(split, optim.batch_size, states, device)
    if training:
        # As train.py would train ours; rivals' users name a number themselves.
        length = bench.tokens + config.lpt.prompt_length
        ours = choose_gradient_accumulation(optim.gradient_accumulation, accelerator, optim.batch_size, length)
        gradient_accumulation = optim.gradient_accumulation or 1 if method in STOCK else ours
        step = _training_step(contestant, optim.lr, batches, gradient_accumulation)
    else:
        step = _evaluation(contestant, batches)

    reset_peak_memory(accelerator)
    seconds = []
    for i in range(UNTIMED + bench.steps):
        wait(accelerator)
        started = time.perf_counter()
        step()
        wait(accelerator)
        if i >= UNTIMED:
            seconds.append(time.perf_counter() - started)
    peak = peak_memory_bytes(accelerator)

    anatomy.use_attention(EAGER)  # the counter does not see into every kernel of sdpa
    with FlopCounterMode(display=False) as counter:
        step()
    hidden = anatomy.hidden_size
    rate = matmul_rate(dtype, accelerator, [(2048, 2048, 2048), (optim.batch_size * bench.tokens, hidden, 4 * hidden)])
    median = statistics.median(seconds)
    return {
        "method": method,
        "precision": placement.precision,
        "attention": attention,
        "step_seconds": median,
        "step_seconds_all": seconds,
        "examples_per_second": optim.batch_size / median,
        "loaded_bytes": loaded,
        "peak_bytes_above_backbone": peak - loaded,
        "trainable_parameters": sum(p.numel() for p in contestant.parameters() if p.requires_grad),
        "flop": counter.get_total_flops(),
        "matmul_flop_per_second": rate,
        "floor_seconds": counter.get_total_flops() / rate,
        "times_floor": median * rate / counter.get_total_flops(),
        "cache_bytes": 0 if states is None else states.states.nbytes,
        "accelerator": torch.cuda.get_device_name() if accelerator == "gpu" else "cpu",
        "threads": torch.get_num_threads(),
    }


def _load_libraries() -> None:
    """What the first step would load is no cost of the method."""
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()


def random_rows(count: int, tokens: int, labels: int, backbone: SplitBackbone) -> EncodedSplit:
    """Rows of one length, read out at the last token, as after a decoder's template."""
    ids = torch.randint(5, backbone.config.vocab_size, (count, tokens)).tolist()
    rows = [Encoded(row, tokens - 1, False) for row in ids]
    return EncodedSplit(rows, LabeledRows([("",)] * count, [i % labels for i in range(count)], list(range(count))))


def _states(backbone: SplitBackbone, split: EncodedSplit) -> RaggedStates:
    cache = TrunkCache("memory", say=lambda message: None)
    cache.prepare(backbone, {"train": split})
    states = cache.states(backbone, split, "train", pad_id=0)
    if states is None:
        assert cache.plan is not None
        raise LptError(f"nothing can be cached: the trunk cache is {cache.plan.reason}")
    return states


def _batches(
    split: EncodedSplit, size: int, states: RaggedStates | None, device: torch.device
) -> Iterator[Callable[[int], Iterator[Batch]]]:
    """Ways to have the next batch in so many parts: putting it together belongs to the step."""

    def collate(first: int, parts: int) -> Iterator[Batch]:
        for part in range(parts):
            rows = range(first + part, first + size, parts)
            yield split.collate([(i, 1 / size) for i in rows], 0, states).to(device)

    return cycle([partial(collate, first) for first in range(0, len(split), size)])


def _training_step(
    contestant: Any, lr: float, batches: Iterator[Callable[[int], Iterator[Batch]]], gradient_accumulation: int
) -> Callable[[], None]:
    trained = [p for p in contestant.parameters() if p.requires_grad]
    if not trained:
        raise LptError("this method trains nothing; give bench.step=evaluate")
    optimizer = torch.optim.AdamW(trained, lr=lr)
    contestant.train()

    def step() -> None:
        optimizer.zero_grad()
        for batch in next(batches)(gradient_accumulation):
            (contestant.losses(batch) * batch.weights).sum().backward()
        optimizer.step()

    return step


def _evaluation(contestant: Any, batches: Iterator[Callable[[int], Iterator[Batch]]]) -> Callable[[], None]:
    contestant.eval()

    @torch.no_grad()
    def step() -> None:
        for batch in next(batches)(1):
            contestant.scores(batch).softmax(1).cpu()

    return step


def main() -> None:
    method, config_json, output = sys.argv[1:]
    config = resolve(OmegaConf.create(json.loads(config_json)))
    try:
        result = measure(method, config)
    except LptError as error:
        result = {"method": method, "error": str(error)}
    except torch.OutOfMemoryError as error:
        result = {"method": method, "error": f"out of memory: {str(error).partition('.')[0]}"}
    Path(output).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
