"""LoRA as an ordinary adapter folder of peft: late LoRA as it is, read-only LoRA of decoders as aLoRA.

Which heads: label words and whole answers are read from the plain model's own logits; a linear head becomes the head of
a token-classification model, read at one token. Shapes: B batch, T tokens, H hidden size, C classes, V vocabulary.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from lpt.backbones.pretrained import Pretrained, find_pretrained
from lpt.classifier import LatePromptClassifier
from lpt.data.batches import Batch
from lpt.data.templates import Encoded
from lpt.errors import LptError
from lpt.export.probes import TOLERANCE, encoded, probe_rows
from lpt.files import whole_file, write_text
from lpt.heads import ContinuationHead, LabelWordsHead, LinearHead

README = """# {task}

LoRA over a frozen language model ({backbone}), exported by Late Prompt Tuning (lpt) for peft. `classifier.json` has the
template, the labels and, where the vocabulary answers for them, the token ids.

```python
from peft import PeftModel
from transformers import {auto}

model = {auto}.from_pretrained({location!r}{options})
model = PeftModel.from_pretrained(model, ".").eval()
```

Write a text into the template. {scores} Divide these scores by the temperature, {temperature}; their softmax are the
probabilities of the labels.
"""


def write_peft(classifier: LatePromptClassifier, folder: Path) -> float:
    """Write a LoRA classifier as peft's adapter, load it into the plain model and compare.

    Args:
        classifier: on the CPU, in float32, of method `lora` (`lpt.export.check_peft`).
        folder: an empty one.

    Returns:
        The largest difference of a class score.

    Raises:
        LptError: peft or a plain model cannot express it, with the reason; or it answers otherwise.
    """
    pretrained = find_pretrained(classifier.config.backbone, classifier.config.revision)
    rows = encoded(classifier, probe_rows(classifier))
    invocation = _invocation(classifier, rows) if classifier.method.read_only else None
    model, head = _plain_model(classifier, pretrained)
    _write_adapter(classifier, pretrained, folder, invocation, head)
    _write_about(classifier, pretrained, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(model, folder).eval()
    scores = _scorer(classifier, loaded)
    worst, allowed = 0.0, TOLERANCE
    with torch.no_grad():
        for row in rows:
            expected_C = classifier.scores(_batch(row))[0]
            worst = max(worst, float((scores(row) - expected_C).abs().max()))
            allowed = max(allowed, TOLERANCE * float(expected_C.abs().max()))
    if not worst <= allowed:
        raise LptError(
            f"format=peft: what was written gives other scores in a plain model than the classifier, by {worst:.2g} "
            f"(allowed {allowed:.2g}); nothing is left of it. Use format=onnx or format=torch"
        )
    return worst


def _write_adapter(
    classifier: LatePromptClassifier,
    pretrained: Pretrained,
    folder: Path,
    invocation: list[int] | None,
    head: str | None,
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`."""
    model, settings = classifier.method.backbone.model, classifier.config.settings
    # The plain model has the backbone inside where this one may be it.
    inside = f"{model.base_model_prefix}." if model.base_model is model else ""
    maps = {f"{inside}{name}": module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    state = {
        f"base_model.model.{name}.{part}.weight": getattr(module, part)["default"].weight.detach().contiguous()
        for name, module in maps.items()
        for part in ("lora_A", "lora_B")
    }
    if head is not None:
        assert isinstance(classifier.head, LinearHead)
        for part, tensor in classifier.head.linear.state_dict().items():
            state[f"base_model.model.{head}.{part}"] = tensor.contiguous()
    one = next(iter(maps.values()))
    config = peft.LoraConfig(
        r=one.r["default"],
        lora_alpha=one.lora_alpha["default"],
        lora_dropout=float(settings.get("dropout", 0.0)),
        target_modules=sorted(maps),
        fan_in_fan_out=one.fan_in_fan_out,
        modules_to_save=None if head is None else [head],
        task_type=_task_type(classifier, head),
        base_model_name_or_path=pretrained.location,
        revision=pretrained.commit,
        alora_invocation_tokens=invocation,
    )
    with whole_file(folder / "adapter_model.safetensors", binary=True) as file:
        file.write(save(state, metadata={"format": "pt"}))
    config.save_pretrained(str(folder))


def _task_type(classifier: LatePromptClassifier, head: str | None) -> str | None:
    if head is not None:
        return "TOKEN_CLS"
    return "CAUSAL_LM" if classifier.template.causal else None  # peft has no name for masked language models


def _plain_model(classifier: LatePromptClassifier, pretrained: Pretrained) -> tuple[Any, str | None]:
    """The model that others load, in eval mode; with the name of its linear head, if it has one.

    Raises:
        LptError: no plain model reads a linear head where this classifier does.
    """
    if not isinstance(classifier.head, LinearHead):
        return pretrained.load_model(torch.float32), None
    backbone, reason = classifier.method.backbone, "its token classification is more than a linear head"
    if backbone.has_lm_head and backbone.family.lm_transform is not None:
        reason = (
            "the linear head reads what the LM head makes of a state before its projection, no plain classifier does"
        )
    else:
        model = _token_classification(pretrained, len(classifier.labels))
        parts = {name: part for name, part in model.named_children() if not isinstance(part, nn.Dropout)}
        parts.pop(model.base_model_prefix)
        if [type(part) for part in parts.values()] == [nn.Linear]:
            return model, next(iter(parts))
    raise LptError(_inexpressible(f"head=linear on a {pretrained.config.model_type} backbone", reason))


def _token_classification(pretrained: Pretrained, num_labels: int) -> Any:
    """Its token-classification model, in eval mode.

    Raises:
        LptError: transformers has none.
    """
    kind = pretrained.config.model_type
    try:
        model = AutoModelForTokenClassification.from_pretrained(
            pretrained.location,
            revision=pretrained.commit,
            num_labels=num_labels,
            dtype=torch.float32,
            trust_remote_code=False,
        )
    except ValueError:
        reason = "transformers has no token classification for it"
        raise LptError(_inexpressible(f"head=linear on a {kind} backbone", reason)) from None
    return model.eval()


def _inexpressible(what: str, reason: str) -> str:
    return f"format=peft cannot express {what}: {reason}. Use format=onnx or format=torch"


def _invocation(classifier: LatePromptClassifier, rows: list[Encoded]) -> list[int]:
    """The token from which on aLoRA is active: the template's last, where the answer is read.

    Raises:
        LptError: texts end in different tokens, or an answer holds the same one.
    """
    last = {row.input_ids[row.readout_position] for row in rows}
    reason = None
    if len(last) > 1:
        reason = "the last token of the template depends on the text, and aLoRA begins at a fixed one"
    elif last & set(classifier.template.answers):
        reason = "an answer holds the template's last token, at which aLoRA would begin again"
    if reason is not None:
        raise LptError(_inexpressible("this adapter", reason))
    return list(last)


def _scorer(classifier: LatePromptClassifier, model: Any) -> Callable[[Encoded], Tensor]:
    """What a plain model makes of a row: its class scores `[C]`, by the logits `[1, T, V]` or `[1, T, C]`."""
    head = classifier.head

    def at_read_out(row: Encoded) -> Tensor:
        ids = torch.tensor([row.input_ids])
        scores_C: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, row.readout_position]
        return scores_C[head.label_ids] if isinstance(head, LabelWordsHead) else scores_C

    def of_answers(row: Encoded) -> Tensor:
        assert isinstance(head, ContinuationHead)
        text, scores = row.input_ids[: row.readout_position + 1], []
        for answer in answers(head):
            ids = torch.tensor([text + answer])
            logits_TV = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(1)
            scores.append(logits_TV[len(text) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).mean())
        return torch.stack(scores)

    return of_answers if isinstance(head, ContinuationHead) else at_read_out


def answers(head: ContinuationHead) -> list[list[int]]:
    """Token ids of each class's answer."""
    return [head.tokens[head.owners == c].tolist() for c in range(head.num_classes)]


def _batch(row: Encoded) -> Batch:
    """A batch of one row."""
    ids, nothing = torch.tensor([row.input_ids]), torch.empty(0)
    mask = torch.tensor([[1] * (row.readout_position + 1) + list(row.branches)]) if row.branches else None
    return Batch(ids, mask, torch.tensor([row.readout_position]), nothing, nothing, nothing, ids.shape[1])


def _write_about(classifier: LatePromptClassifier, pretrained: Pretrained, folder: Path) -> None:
    """Write `classifier.json` and `README.md`."""
    config, head, options = classifier.config, classifier.head, ""
    auto = "AutoModelForCausalLM" if classifier.template.causal else "AutoModelForMaskedLM"
    place = "last token" if classifier.template.causal else "mask token"
    about: dict[str, Any] = {"task": config.task, "labels": config.labels, "template": config.template}
    about |= {"temperature": config.temperature, "max_length": config.max_length, "value_range": config.value_range}
    if isinstance(head, LinearHead):
        auto, options = "AutoModelForTokenClassification", f", num_labels={len(config.labels)}"
        scores = f"The logits at the {place} are the scores of the classes."
    elif isinstance(head, ContinuationHead):
        about["answers"] = answers(head)
        scores = "A class's score is the mean log-likelihood of its answer's tokens behind the text."
    else:
        assert isinstance(head, LabelWordsHead)
        about["label_ids"] = head.label_ids.tolist()
        scores = f"The logits of `label_ids` at the {place} are the scores of the classes."
    if pretrained.commit is not None:
        options += f", revision={pretrained.commit!r}"
    write_text(folder / "classifier.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    write_text(
        folder / "README.md",
        README.format(
            task=config.task,
            backbone=config.architecture,
            auto=auto,
            location=pretrained.location,
            options=options,
            scores=scores,
            temperature=config.temperature,
        ),
    )
