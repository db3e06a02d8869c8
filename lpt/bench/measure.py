"""One candidate measured, in a process of its own, so that its memory is its own.

    python -m lpt.bench.measure <candidate> <configuration, JSON> <where to write the result, JSON>

B batch, T tokens, H hidden size.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from lpt.backbones.names import EAGER, LEAN
from lpt.backbones.placement import Placement
from lpt.backbones.pretrained import find_pretrained
from lpt.backbones.split import SplitBackbone
from lpt.bench.candidates import STOCK, Stock, build_candidate
from lpt.cache.trunk import TrunkCache
from lpt.config.bench import config_from_json
from lpt.config.schema import Config
from lpt.data.ahead import ahead
from lpt.data.batches import Batch, EncodedSplit
from lpt.data.ragged import Kept
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
from lpt.late_prompt import LateMethod
from lpt.methods import trains_backbone

BATCHES = 4  # different ones, so that nothing is served from a processor cache that the last step has warmed
UNTIMED = 2  # steps before those that are timed
Step = Callable[[], None]


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
    pretrained = find_pretrained(config.backbone.path, config.backbone.revision)
    model = pretrained.load_model(dtype, accelerator=accelerator).to(device)
    anatomy = SplitBackbone(model, layer=1)
    if bench.tokens > anatomy.max_length:
        raise LptError(f"bench.tokens={bench.tokens} is more than {config.backbone.name} allows ({anatomy.max_length})")
    module, loaded = _build(candidate, model, config, device, accelerator)
    attention = _use_attention(anatomy if candidate in STOCK else module.method.backbone, candidate, config, placement)
    split = random_rows(optim.batch_size * BATCHES, bench.tokens, bench.labels, anatomy)
    kept = _keep(module.method, split) if candidate.endswith("_cached") else None
    cache_bytes = 0 if kept is None else kept.bytes
    loaded += cache_bytes  # here in memory
    micro_batches = _micro_batches(module, config, accelerator) if bench.step == "train" else 1
    batches = _batches(split, optim.batch_size // micro_batches, kept, device)
    if bench.step == "train":
        step = _training_step(module, optim.lr, batches, micro_batches)
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
        "cache_bytes": cache_bytes,
        "cache_rows": len(split),
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


def _use_attention(backbone: SplitBackbone, candidate: str, config: Config, placement: Placement) -> str:
    """Set the attention implementation; returns its name."""
    bench, asked = config.bench, config.backbone.attention
    attention = placement.choose_attention(backbone, bench.tokens, asked, training=bench.step == "train")
    if attention == LEAN and candidate in STOCK:
        attention = EAGER  # the faster of those that stock baselines have
    backbone.use_attention(attention)
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


def _keep(method: LateMethod, split: EncodedSplit) -> Kept | None:
    """What a run's cache has of these rows, in memory; None where there is nothing: reading the embeddings is the same.

    Raises:
        LptError: an option forbids a cache.
    """
    backbone = method.backbone
    if backbone.layer == 1 and not method.read_only:
        return None
    cache = TrunkCache("memory", say=lambda message: None)
    plan = cache.prepare(backbone, {"train": split})
    states = cache.states(backbone, split, "train", pad_id=0)
    on_cpu = backbone.model.device.type == "cpu"  # a GPU keeps no keys and values
    if states is None or (on_cpu and plan.keys_values is not method.read_only):
        raise LptError(f"nothing can be cached: the trunk cache is {plan.reason}")
    return Kept(states, cache.keys_values(backbone, split, "train", 0, states))


def _batches(split: EncodedSplit, size: int, kept: Kept | None, device: torch.device) -> Iterator[Batch]:
    """Batches of `size` rows, over and over, each put together while the one before it is used, as in training."""
    firsts = cycle(range(0, len(split) - size + 1, size))
    collated = (split.collate([(i, 1.0) for i in range(first, first + size)], 0, kept) for first in firsts)
    return (batch.to(device) for batch in ahead(collated))


def _micro_batches(module: Any, config: Config, accelerator: str) -> int:
    """Micro-batches of a step: as in training; for stock baselines one, unless a number is given."""
    given, rows = config.optim.gradient_accumulation, config.optim.batch_size
    if given is None and not isinstance(module, Stock):
        tokens = module.method.active_tokens(config.bench.tokens)
        given = choose_gradient_accumulation(None, accelerator, rows, tokens)
    # All of a size here.
    return next(count for count in range(given or 1, rows + 1) if rows % count == 0)


def _training_step(module: Any, lr: float, batches: Iterator[Batch], micro_batches: int) -> Step:
    """A function that takes one optimizer step."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise LptError("this method trains nothing; give bench.step=evaluate")
    optimizer = torch.optim.AdamW(trained, lr=lr, fused=True)
    module.train()

    def step() -> None:
        optimizer.zero_grad()
        for batch in islice(batches, micro_batches):
            (module.losses(batch).mean() / micro_batches).backward()
        optimizer.step()

    return step


def _evaluation(module: Any, batches: Iterator[Batch]) -> Step:
    """A function that scores one batch."""
    module.eval()

    @torch.no_grad()
    def step() -> None:
        module.scores(next(batches)).softmax(1).cpu()

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
