"""What the recipes are worth: test accuracy with 200 training rows, over tasks and seeds, on MiniLM-L6.

    python experiments/recipes.py <folder of GLUE's tasks, with TREC and Subj> 13,21,42

Every run keeps its last step, as cross-validated ones do. One JSON line for each run on stdout.
"""

import json
import sys
import tempfile

import lpt
from lpt.console import quietly

TASKS = {
    "trec": ("task=trec", "task.source=tsv"),
    "subj": ("task=subj", "task.source=tsv"),
    "film_reviews": ("task=film_reviews",),
}
RECIPES = {
    "default": ("recipe=default", "trainer.max_steps=300"),
    "quick": ("recipe=quick", "trainer.max_steps=150"),
    "default, all tokens": ("recipe=default", "trainer.max_steps=300", "lpt.read_only=false"),
    "before": ("head=linear", "trainer.max_steps=48"),
}


def main() -> None:
    folder, seeds = sys.argv[1], sys.argv[2].split(",")
    for seed in seeds:
        for task, chosen in TASKS.items():
            data = [f"task.data_dir={folder}"] if "task.source=tsv" in chosen else []
            for recipe, options in RECIPES.items():
                rows = ("fewshot=total", "fewshot.k=200", "fewshot.k_dev=0", f"seed={seed}", "logger=none")
                with tempfile.TemporaryDirectory() as run, quietly():
                    where = ("backbone=minilm-l6", f"hydra.run.dir={run}/run")
                    result = lpt.train(*chosen, *data, *where, *options, *rows).result
                accuracy = result.metrics["test"]["accuracy"]
                print(json.dumps([task, recipe, seed, accuracy, result.train.seconds]), flush=True)


if __name__ == "__main__":
    main()
