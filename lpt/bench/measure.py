"""One candidate measured, in a process of its own, so that its memory is its own.

    python -m lpt.bench.measure <candidate> <configuration, JSON> <where to write the result, JSON>

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
from torch.utils.flop_counter import FlopCounterMode

from lpt.backbones.names import EAGER, LEAN
from lpt.backbones.placement import Placement
from lpt.backbones.pretrained import find_pretrained
from lpt.backbones.split import SplitBackbone
from lpt.bench.candidates import STOCK, build_candidate
from lpt.cache.trunk import TrunkCache
from lpt.config.bench import config_from_json
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

BATCHES = 4  # different ones, so that nothing is served from a processor cache that the last step has warmed
UNTIMED = 2  # steps before those that are timed
Step = Callable[[], None]
Batches = Iterator[Callable[[int], Iterator[Batch]]]
# Of each batch, a function that yields it in a number of parts: putting it together belongs to the step.


def measure(candidate: str, config: Config) -> dict[str, Any]:
    """Seconds, memory and arithmetic of a candidate's steps, as `bench.json` holds them.

    Raises:
        LptError: this machine or this backbone cannot do it.
    """
    _check(config)
    bench, optim = config.bench, config.optim
    placement = _place(candidate, config)
    accelerator, device, dtype = placement.accelerator, placement.device, placement.dtype
    torch.manual_seed(config.seed)
    model = find_pretrained(config.backbone.path, config.backbone.revision).load_model(dtype).to(device)
    anatomy = SplitBackbone(model, layer=1)
    if bench.tokens > anatomy.max_length:
        raise LptError(f"bench.tokens={bench.tokens} is more than {config.backbone.name} allows ({anatomy.max_length})")
    attention = _use_attention(anatomy, candidate, config, placement)
    module, loaded = _build(candidate, model, config, device, accelerator)
    split = random_rows(optim.batch_size * BATCHES, bench.tokens, bench.labels, anatomy)
    # Below layer 1 there is nothing to cache: reading the embeddings is the same.
    cached = candidate.endswith("_cached") and module.method.backbone.layer > 1
    states = _states(module.method.backbone, split) if cached else None
    batches = _batches(split, optim.batch_size, states, device)
    if bench.step == "train":
        step = _training_step(module, optim.lr, batches, _micro_batches(candidate, config, accelerator))
    else:
        step = _evaluation(module, batches)

    seconds, peak = _time(step, bench.steps, accelerator)
    flop = _count_flop(step, anatomy)
    hidden = anatomy.hidden_size
    rate = matmul_rate(dtype, accelerator, [(2048, 2048, 2048), (optim.batch_size * bench.tokens, hidden, 4 * hidden)])
    median = statistics.median(seconds)
    return {
        "method": candidate,
        "precision": placement.precision,
        "attention": attention,
        "step_seconds": median,
        "step_seconds_all": seconds,
        "examples_per_second": optim.batch_size / median,
        "loaded_bytes": loaded,
        "peak_bytes_above_backbone": peak - loaded,
        "trainable_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "flop": flop,
        "matmul_flop_per_second": rate,
        "arithmetic_bound_seconds": flop / rate,
        "vs_arithmetic_bound": median * rate / flop,
        "cache_bytes": 0 if states is None else states.states.nbytes,
        "accelerator": torch.cuda.get_device_name() if accelerator == "gpu" else "cpu",
        "threads": torch.get_num_threads(),
    }


def _check(config: Config) -> None:
    if config.backbone.quantization is not None:
        raise LptError(
            f"lpt bench measures backbones as they are; remove backbone.quantization={config.backbone.quantization}"
        )
    if config.trainer.compile:
        check_compiler()


def _place(candidate: str, config: Config) -> Placement:
    """Weights that are trained are measured in float32, and without autocast."""
    trains_weights = candidate not in STOCK and trains_backbone(config.method.name)
    placement = Placement.choose(config.trainer.accelerator, "32" if trains_weights else config.trainer.precision)
    if placement.accelerator == "cpu":
        keep_freed_memory()
    return placement


def _use_attention(anatomy: SplitBackbone, candidate: str, config: Config, placement: Placement) -> str:
    """Set the attention implementation; returns its name."""
    bench, asked = config.bench, config.backbone.attention
    attention = placement.choose_attention(anatomy, bench.tokens, asked, training=bench.step == "train")
    if attention == LEAN and candidate in STOCK:
        attention = EAGER  # the faster of those that stock baselines have
    anatomy.use_attention(attention)
    return attention


def _build(candidate: str, model: Any, config: Config, device: torch.device, accelerator: str) -> tuple[Any, int]:
    """The candidate's module, and the memory in bytes that the process uses for the backbone alone."""
    backbone_tensors = {id(p): float(p.sum()) for p in model.parameters()}  # read: mapped files are in memory now
    label_ids = list(range(10, 10 + config.bench.labels))
    module = build_candidate(candidate, model, config, label_ids).to(device)
    _load_libraries()
    own = [p for p in module.parameters() if id(p) not in backbone_tensors]
    return module, reset_peak_memory(accelerator) - sum(p.nbytes for p in own)


def _load_libraries() -> None:
    """Have PyTorch load what the first step would load, which is not a cost of the method."""
    weight = torch.nn.Parameter(torch.zeros(1))
    torch.autograd.backward(weight.sum())
    torch.optim.AdamW([weight]).step()


def random_rows(count: int, tokens: int, labels: int, backbone: SplitBackbone) -> EncodedSplit:
    """Rows of one length, read out at the last token, as after a decoder's template.

    Args:
        count: number of rows.
        tokens: tokens of each row.
        labels: number of classes, which the rows have in turn.
        backbone: the backbone, for its vocabulary.
    """
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


def _batches(split: EncodedSplit, size: int, states: RaggedStates | None, device: torch.device) -> Batches:
    """All batches of `size` rows, over and over."""

    def collate(first: int, parts: int) -> Iterator[Batch]:
        for part in range(parts):
            rows = range(first + part, first + size, parts)
            yield split.collate([(i, 1 / size) for i in rows], 0, states).to(device)

    return cycle([partial(collate, first) for first in range(0, len(split), size)])


def _micro_batches(candidate: str, config: Config, accelerator: str) -> int:
    """Micro-batches of a step: as in training; for stock baselines one, unless a number is given."""
    given = config.optim.gradient_accumulation
    if candidate in STOCK:
        return given or 1
    length = config.bench.tokens + config.lpt.prompt_length
    return choose_gradient_accumulation(given, accelerator, config.optim.batch_size, length)


def _training_step(module: Any, lr: float, batches: Batches, micro_batches: int) -> Step:
    """A function that takes one optimizer step."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise LptError("this method trains nothing; give bench.step=evaluate")
    optimizer = torch.optim.AdamW(trained, lr=lr)
    module.train()

    def step() -> None:
        optimizer.zero_grad()
        for batch in next(batches)(micro_batches):
            (module.losses(batch) * batch.weights).sum().backward()
        optimizer.step()

    return step


def _evaluation(module: Any, batches: Batches) -> Step:
    """A function that scores one batch."""
    module.eval()

    @torch.no_grad()
    def step() -> None:
        for batch in next(batches)(1):
            module.scores(batch).softmax(1).cpu()

    return step


def _time(step: Step, steps: int, accelerator: str) -> tuple[list[float], int]:
    """The seconds of each timed step, and the peak memory of the process in bytes."""
    reset_peak_memory(accelerator)
    seconds = []
    for i in range(UNTIMED + steps):
        wait(accelerator)
        started = time.perf_counter()
        step()
        wait(accelerator)
        if i >= UNTIMED:
            seconds.append(time.perf_counter() - started)
    return seconds, peak_memory_bytes(accelerator)


def _count_flop(step: Step, anatomy: SplitBackbone) -> int:
    """Floating-point operations of the matrix products of a step."""
    anatomy.use_attention(EAGER)  # the counter does not see into every kernel of sdpa
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def main() -> None:
    """Measure what the command line names, and write the result, or why there is none."""
    candidate, config_json, output = sys.argv[1:]
    config = config_from_json(config_json)
    try:
        result = measure(candidate, config)
    except LptError as error:
        result = {"method": candidate, "error": str(error)}
    except torch.OutOfMemoryError as error:
        result = {"method": candidate, "error": f"out of memory: {str(error).partition('.')[0]}"}
    Path(output).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
