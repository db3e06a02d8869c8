"""What the recipes are worth: test accuracy with 200 training rows, over tasks and seeds.

    python experiments/recipes.py <folder of GLUE's tasks, with TREC and Subj> 13,21,42 [minilm-l6] [best,quick]

The fourth task is the support tickets of six intents that the tests make. Every run keeps its last step, as
cross-validated ones do, except `best`, which takes 50 of the 200 rows to choose learning rate and step. One JSON line
for each run on stdout.
"""

import json
import sys
import tempfile
from pathlib import Path

import lpt
from lpt.console import quietly

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tickets import tickets, write_tickets

RECIPES = {
    "default": ("recipe=default", "trainer.max_steps=300"),
    "quick": ("recipe=quick", "trainer.max_steps=150"),
    "default, all tokens": ("recipe=default", "trainer.max_steps=300", "lpt.read_only=false"),
    "all tokens, 5e-4": ("recipe=default", "trainer.max_steps=300", "lpt.read_only=false", "optim.lr=5e-4"),
    "all tokens, 2e-3": ("recipe=default", "trainer.max_steps=300", "lpt.read_only=false", "optim.lr=2e-3"),
    "all tokens, longer": ("recipe=default", "trainer.max_steps=600", "lpt.read_only=false"),
    "best": ("recipe=best",),
    "before": ("head=linear", "trainer.max_steps=48", "lpt.read_only=false"),
}


def tasks(folder: str, scratch: Path) -> dict[str, tuple[str, ...]]:
    """Task -> its options."""
    train, test = (write_tickets(scratch / f"{name}.csv", tickets(n, seed=n)) for name, n in (("a", 1000), ("b", 2000)))
    intents = ",".join(repr(intent) for intent in sorted({intent for _, intent in tickets(12, seed=0)}))
    files = {"train": train, "test": test, "a": "body", "label": "intent"}
    own = [f"task.files.{name}={value}" for name, value in files.items()]
    return {
        "trec": ("task=trec", "task.source=tsv", f"task.data_dir={folder}"),
        "subj": ("task=subj", "task.source=tsv", f"task.data_dir={folder}"),
        "film_reviews": ("task=film_reviews",),
        "tickets": ("task=custom", "task.name=tickets", f"task.labels=[{intents}]", *own),
    }


def rows(recipe: str) -> tuple[str, ...]:
    """200 rows in all, those that choose included."""
    choose = 50 if recipe == "best" else 0
    return ("fewshot=total", f"fewshot.k={200 - choose}", f"fewshot.k_dev={choose}")


def main() -> None:
    folder, seeds = sys.argv[1], sys.argv[2].split(",")
    backbone = sys.argv[3] if len(sys.argv) > 3 else "minilm-l6"
    recipes = sys.argv[4].split(",") if len(sys.argv) > 4 else list(RECIPES)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            for task, chosen in tasks(folder, Path(scratch)).items():
                for recipe in recipes:
                    with tempfile.TemporaryDirectory() as run, quietly():
                        own = (f"backbone={backbone}", f"seed={seed}", "logger=none", f"hydra.run.dir={run}/run")
                        result = lpt.train(*chosen, *own, *RECIPES[recipe], *rows(recipe)).result
                    accuracy = result.metrics["test"]["accuracy"]
                    print(json.dumps([task, recipe, seed, accuracy, result.train.seconds]), flush=True)


if __name__ == "__main__":
    main()
