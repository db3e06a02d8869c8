"""What many tasks over one reading cost, against one task and against as many passes of their own.

    python experiments/many_tasks.py [--backbone minilm-l6] [--tasks 10] [--texts 1000] [--method lpt] [--layer 16]

The tasks are untrained (that costs the same) and read only; the texts are film reviews. A decoder's tasks each end in a
line of their own, an encoder's share one template. Each is run alone too, as a classifier with a backbone of its own.
One JSON line on stdout: seconds, and what the tensors take.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lpt import LatePromptClassifier, MultiTaskClassifier
from lpt.backbones.placement import Placement
from lpt.config.compose import compose_points
from lpt.config.resolve import resolve
from lpt.data.splits import read_rows
from lpt.training.experiment import adapter_config, find_backbone

ENDS = [
    "It was",
    "The topic:",
    "Its mood:",
    "Written by a",
    "The plot is",
    "The pace is",
    "For",
    "Worth",
    "It felt",
    "Its end:",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="minilm-l6")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--method", default="lpt")
    parser.add_argument("--layer", default="null")
    parser.add_argument("--words", type=int, default=0, help="join reviews until a text has so many")
    parser.add_argument("--repeats", type=int, default=3)
    found = parser.parse_args()
    options = [f"backbone={found.backbone}", f"method={found.method}", f"lpt.layer={found.layer}", "task=film_reviews"]
    (cfg,) = compose_points([[*options, "lpt.read_only=true", "head=linear", "fewshot=full"]])
    config = resolve(cfg)
    texts = [sentences[0] for sentences in read_rows(config.task, config.fewshot).train.sentences]
    texts = joined(texts, found.words)[: found.texts]
    placement, pretrained = Placement.choose("auto", "auto"), find_backbone(config)
    with TemporaryDirectory() as scratch:
        folders = []
        for number in range(found.tasks):
            config.task.name = f"task {number}"
            if pretrained.family.causal:
                config.task.template.decoder = "{a} " + ENDS[number % len(ENDS)]
            torch.manual_seed(number)
            one = LatePromptClassifier(adapter_config(config, pretrained), pretrained, placement.dtype)
            one.save_pretrained(Path(scratch) / str(number))
            folders.append(Path(scratch) / str(number))
        many = MultiTaskClassifier(folders)
        apart = [LatePromptClassifier.from_pretrained(folder) for folder in folders]
        seconds = {"one": [], "apart": [], "together": []}
        for _ in range(found.repeats):  # in turn, so that all see the same machine
            seconds["together"].append(timed(lambda: many.predict(texts)))
            each = [timed(lambda one=one: one.predict(texts)) for one in apart]
            seconds["one"].append(each[0])
            seconds["apart"].append(sum(each))
    one, separate, together = (min(seconds[kind]) for kind in ("one", "apart", "together"))
    print(
        json.dumps(
            {
                "backbone": found.backbone,
                "method": found.method,
                "tasks": found.tasks,
                "texts": len(texts),
                "words": round(sum(len(text.split()) for text in texts) / len(texts), 1),
                "precision": str(placement.dtype),
                "seconds of one": round(one, 2),
                "seconds of all together": round(together, 2),
                "seconds of all, one after the other": round(separate, 2),
                "together / one": round(together / one, 2),
                "one after the other / together": round(separate / together, 2),
                "megabytes together": round(held_bytes(many._classifiers.values()) / 1e6),
                "megabytes of as many classifiers": round(held_bytes(apart) / 1e6),
            }
        )
    )


def joined(texts: list[str], words: int) -> list[str]:
    """Texts of at least so many words, of several in their order."""
    long, text = [], ""
    for one in texts:
        text = f"{text} {one}".strip()
        if len(text.split()) >= words:
            long.append(text)
            text = ""
    return long


def held_bytes(modules) -> int:
    """What the tensors of some modules take, each counted once however many modules have it."""
    tensors = [x for module in modules for x in (*module.parameters(), *module.buffers())]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
