"""The whole classifier as one program: token ids in, class probabilities out. B batch, T tokens, C classes.

A folder of it holds `model.onnx` or `model.pt2`, `tokenizer.json`, `config.json` and a README that says how to run it.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lpt.backbones.names import EAGER
from lpt.classifier import LatePromptClassifier
from lpt.data.batches import Batch
from lpt.errors import LptError
from lpt.export.about import write_about
from lpt.export.operators import DECOMPOSITIONS
from lpt.export.probes import INPUTS, TOLERANCE, inputs, probe_rows

FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
WITHIN_ONE_FILE = 1_900_000_000  # bytes of weights; an ONNX file ends at 2 GiB, the graph included

Run = Callable[[tuple[Tensor, Tensor, Tensor]], np.ndarray]


class Probabilities(nn.Module):
    """A classifier as a function of tensors alone, its temperature and prior included."""

    def __init__(self, classifier: LatePromptClassifier):
        super().__init__()
        self.classifier = classifier
        # Registered, so that weights that both have are written once.
        self.twins = nn.ModuleList(classifier.method.backbone.twins or ())

    def forward(self, input_ids: Tensor, attention_mask: Tensor, readout_position: Tensor) -> Tensor:
        """Class probabilities `[B, C]`, float32.

        Args:
            input_ids: `[B, T]` int64.
            attention_mask: `[B, T]` int64: 0 padding, 1 text, from 2 on the answers that a head scores.
            readout_position: `[B]` int64.
        """
        classifier = self.classifier
        mask = attention_mask if classifier.head.num_extra_positions else attention_mask.bool()
        nothing = torch.empty(0)
        scores_BC = classifier.scores(Batch(input_ids, mask, readout_position, nothing, nothing, nothing, 0))
        return (scores_BC.float() / classifier.config.temperature).softmax(1)


def write_program(classifier: LatePromptClassifier, format: str, folder: Path) -> float:
    """Write a classifier as a program, load it back and compare.

    Args:
        classifier: on the CPU, in float32; it computes attention by the textbook from now on.
        format: `onnx` or `torch`.
        folder: an empty one.

    Returns:
        The largest difference of a probability.

    Raises:
        LptError: it cannot be written as a program, with what stands in the way; or it answers otherwise.
    """
    rows = probe_rows(classifier)
    expected_NC = classifier.predict_proba(rows)  # type: ignore[arg-type]  # one text or two in each
    classifier.method.backbone.use_attention(EAGER)
    path = folder / FILES[format]
    try:
        program = traced(classifier)
        write_about(classifier, format, path.name, folder)
        run = _write_onnx(program, path) if format == "onnx" else _write_torch(program, path)
    except LptError:
        raise
    except Exception as error:  # torch and onnxscript each raise many kinds
        config = classifier.config
        raise LptError(
            f"format={format}: method={config.method} with head={config.head} on a {config.architecture.split(',')[0]} "
            f"cannot be written as a program: {_reason(error)}"
        ) from error
    batches = [(rows, expected_NC), (rows[:2], expected_NC[:2])]
    batches += [([row], expected_NC[i : i + 1]) for i, row in enumerate(rows)]
    worst = max(float(np.abs(run(inputs(classifier, some)) - expected).max()) for some, expected in batches)
    if not worst <= TOLERANCE:
        raise LptError(
            f"format={format}: what was written gives other probabilities than the classifier, by {worst:.2g} (allowed "
            f"{TOLERANCE:g}); nothing is left of it"
        )
    return worst


def traced(classifier: LatePromptClassifier) -> ExportedProgram:
    """The program, for any number of rows and any length that the backbone allows."""
    shortest = 3 if classifier.head.num_extra_positions else 1
    batch = Dim.DYNAMIC(min=1)
    length = Dim.DYNAMIC(min=shortest, max=classifier.method.backbone.max_length)
    shapes = {"input_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}}
    example = inputs(classifier, probe_rows(classifier)[:3])
    with torch.no_grad(), _quiet():
        return torch.export.export(
            Probabilities(classifier).eval(), example, dynamic_shapes=shapes | {"readout_position": {0: batch}}
        )


def _write_torch(program: ExportedProgram, path: Path) -> Run:
    with _quiet():
        torch.export.save(program, path)
        module = torch.export.load(path).module()
    return lambda given: module(*given).detach().numpy()


def _write_onnx(program: ExportedProgram, path: Path) -> Run:
    import onnxruntime

    tensors = [t for t in (*program.state_dict.values(), *program.constants.values()) if isinstance(t, Tensor)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    with torch.no_grad(), _quiet():
        program = program.run_decompositions(torch.export.default_decompositions() | DECOMPOSITIONS)
        torch.onnx.export(
            program,
            f=str(path),
            input_names=INPUTS,
            output_names=["probabilities"],
            external_data=size > WITHIN_ONE_FILE,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path)

    def run(given: tuple[Tensor, Tensor, Tensor]) -> np.ndarray:
        named = {name: tensor.numpy() for name, tensor in zip(INPUTS, given, strict=True)}
        probabilities_BC: np.ndarray = session.run(None, named)[0]
        return probabilities_BC

    return run


class _quiet(warnings.catch_warnings):  # noqa: N801  (used as a function)
    """Without what torch says of its own insides on the way."""

    def __enter__(self) -> Any:
        self.logger = logging.getLogger("torch.onnx")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        return entered

    def __exit__(self, *error: object) -> None:
        self.logger.setLevel(self.level)
        super().__exit__(*error)  # type: ignore[arg-type]


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].rstrip(".")
