"""The numbers of the published reference implementation, ten tiny random backbones (tests/golden)."""

import json
from pathlib import Path

import places
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from lpt import LatePromptModel
from lpt.backbones.names import ATTENTIONS

CASES = sorted(path.parent for path in places.GOLDEN.glob("*/case.json"))
GENERATORS = {"naive": "npg", "avg_pool": "appg", "max_pool": "mppg", "static": "none"}


class Case:
    """One golden folder: its model with the reference's initial generator, and the loss the reference takes."""

    def __init__(self, folder: Path, attention: str):
        self.settings = json.loads((folder / "case.json").read_text())
        self.inputs = load_file(folder / "inputs.safetensors")
        self.expected = load_file(folder / "expected.safetensors")
        self.causal = self.settings["kind"] == "causal-lm"
        auto = AutoModelForCausalLM if self.causal else AutoModelForMaskedLM
        self.model = LatePromptModel(
            auto.from_pretrained(folder, attn_implementation=attention),
            layer=self.settings["lpt_layer"],
            prompt_length=self.settings["prompt_length"],
            generator=GENERATORS[self.settings["generator"]],
            bottleneck=self.settings["bottleneck"],
        )
        self.model.generator.load_state_dict(load_file(folder / "generator.safetensors"))
        self.model.train()

    def logits(self) -> torch.Tensor:
        ids, mask = self.inputs["input_ids"], self.inputs["attention_mask"]
        if self.causal:
            return self.model.token_logits(ids, mask, self.inputs["answer_position"]) * mask[..., None]
        return self.model(ids, mask, self.inputs["mask_position"])

    def losses(self, logits: torch.Tensor) -> torch.Tensor:
        """`[B]`: over the whole vocabulary at the mask, or the mean over the answer's tokens."""
        if not self.causal:
            return F.cross_entropy(logits, self.inputs["label_token"].long(), reduction="none")
        targets = self.inputs["input_ids"][:, 1:].long()
        nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")
        answer = self.inputs["loss_mask"][:, 1:].float()
        return (nll * answer).sum(1) / answer.sum(1)


@pytest.fixture(params=ATTENTIONS)
def attention(request):
    return request.param


@pytest.fixture(params=CASES, ids=lambda folder: folder.name)
def case(request, attention):
    return Case(request.param, attention)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm().clamp(min=1e-12)).item()


def test_logits_equal_the_reference(case, record_property):
    worst = (case.logits() - case.expected["logits"]).abs().max().item()
    record_property("worst", worst)
    assert worst < 1e-5


def test_loss_and_gradients_equal_the_reference(case):
    losses = case.losses(case.logits())
    losses.mean().backward()
    assert relative(losses.mean().detach(), case.expected["loss"]) < 1e-4
    if case.causal:
        assert relative(losses.detach(), case.expected["per_example_loss"]) < 1e-4
    gradients = dict(case.model.generator.named_parameters())
    assert {f"grad.{name}" for name in gradients} == {n for n in case.expected if n.startswith("grad.")}
    for name, parameter in gradients.items():
        assert relative(parameter.grad, case.expected[f"grad.{name}"]) < 1e-4, name


def test_ten_adamw_steps_equal_the_reference(case):
    settings = case.settings["adamw"]
    optimizer = torch.optim.AdamW(
        case.model.generator.parameters(),
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
    )
    losses = []
    for _ in range(settings["steps"]):
        loss = case.losses(case.logits()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert relative(torch.stack(losses), case.expected["losses_adamw"]) < 1e-4
    for name, parameter in case.model.generator.named_parameters():
        assert relative(parameter.detach(), case.expected[f"final.{name}"]) < 1e-3, name
