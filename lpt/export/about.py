"""What a folder with a program holds besides it: the tokenizer, a configuration, and how to run it."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lpt.classifier import LatePromptClassifier
from lpt.errors import LptError
from lpt.export.probes import probe_rows
from lpt.files import write_text

RUN = {  # the lines that load the model, and those that run it
    "onnx": (
        "import onnxruntime",
        'model = onnxruntime.InferenceSession("{file}")',
        "(probabilities,) = model.run(None, "
        '{{"input_ids": input_ids, "attention_mask": mask, "readout_position": position}})',
    ),
    "torch": (
        "import torch",
        'model = torch.export.load("{file}").module()',
        "probabilities = model(*map(torch.from_numpy, (input_ids, mask, position))).tolist()",
    ),
}
README = """# {task}

A classifier over a frozen language model ({backbone}), exported by Late Prompt Tuning (lpt).

{classes} It needs `{needs}`, `numpy` and `tokenizers`, and nothing else. `config.json` has what the lines below read.

```python
import json, numpy
{imports}
from tokenizers import Tokenizer

config, tokenizer = json.load(open("config.json")), Tokenizer.from_file("tokenizer.json")
{load}
texts = {texts}
fields = [dict(zip("ab", map(str.strip, text)), mask=config["mask_token"]) for text in texts]
rows = [tokenizer.encode(config["template"].format(**row)).ids for row in fields]
rows = [ids[: len(ids) - config["closing_tokens"]] for ids in rows]
position = numpy.array([{position} for ids in rows])
answers, branches = config["answer_tokens"], config["answer_branches"]
length = max(map(len, rows)) + len(answers)
assert length <= config["max_length"], "shorten the text first"
padding = [length - len(ids) - len(answers) for ids in rows]
input_ids = numpy.array([ids + answers + [config["pad_id"]] * n for ids, n in zip(rows, padding)])
mask = numpy.array([[1] * len(ids) + branches + [0] * n for ids, n in zip(rows, padding)])
{run}
for text, row in zip(texts, probabilities):
    print(text, dict(zip(config["labels"], map(float, row))))
```

A text that holds special tokens of the tokenizer, such as its mask token, should have them removed first.
"""


def write_about(classifier: LatePromptClassifier, format: str, file: str, folder: Path) -> None:
    """Write `tokenizer.json`, `config.json` and `README.md`.

    Raises:
        LptError: the tokenizer does not come out the same as a file of its own.
    """
    config, template = classifier.config, classifier.template
    tokenizer = Tokenizer.from_str(template.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    write_text(folder / "tokenizer.json", tokenizer.to_str())
    about = {
        "task": config.task,
        "labels": config.labels,
        "template": config.template,
        "mask_token": None if template.causal else template.tokenizer.mask_token,
        "mask_id": None if template.causal else template.tokenizer.mask_token_id,
        "pad_id": classifier.pad_id,
        "closing_tokens": _closing_tokens(classifier, tokenizer),
        "answer_tokens": template.answers,
        "answer_branches": list(template.branches),
        "max_length": config.max_length,
        "value_range": config.value_range,
    }
    write_text(folder / "config.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", _readme(classifier, format, file))


def _readme(classifier: LatePromptClassifier, format: str, file: str) -> str:
    config, template = classifier.config, classifier.template
    imports, load, run = (line.format(file=file) for line in RUN[format])
    if template.causal:
        position = "len(ids) - 1"
    elif config.template.index("{mask}") < config.template.index("{a}"):
        position = 'ids.index(config["mask_id"])'
    else:
        position = 'len(ids) - 1 - ids[::-1].index(config["mask_id"])'
    classes = f"Classes: {', '.join(config.labels)}."
    if config.value_range is not None:
        low, high = config.value_range
        classes = f"Values: {low:g} + {high - low:g} times the probability of the second label."
    texts = [("A moving, funny film.", "It is sad."), ("fine", "dull")] if template.pair else [("fine",), ("A film.",)]
    return README.format(
        task=config.task,
        backbone=config.architecture,
        classes=classes,
        needs={"onnx": "onnxruntime", "torch": "torch"}[format],
        imports=imports,
        load=load,
        run=run,
        texts=texts,
        position=position,
    )


def _closing_tokens(classifier: LatePromptClassifier, tokenizer: Any) -> int:
    """How many tokens the tokenizer puts behind a decoder's text, which the classifier does not read.

    Raises:
        LptError: the tokens of the probe texts are not the classifier's.
    """
    template, found = classifier.template, set()
    for row in (row for row in probe_rows(classifier) if len(" ".join(row)) < 100):  # none that is truncated
        ids = tokenizer.encode(template.render(row)[0]).ids
        wanted = template.encode([row])[0]
        wanted_ids = wanted.input_ids[: len(wanted.input_ids) - len(template.answers)]
        if ids[: len(wanted_ids)] != wanted_ids:
            raise LptError(f"the tokenizer of {classifier.config.backbone} gives other tokens as a file of its own")
        found.add(len(ids) - len(wanted_ids))
    if len(found) != 1:
        raise LptError(f"the tokenizer of {classifier.config.backbone} closes texts with varying tokens")
    return found.pop()
