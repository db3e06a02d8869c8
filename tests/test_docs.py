"""The Python examples of README.md and docs/ work as they stand, here on tiny models; so do the commands."""

import re
import shlex
from dataclasses import replace

import pytest
import torch
from places import REPOSITORY as ROOT
from tiny import HIDDEN, LAYERS, tiny_adapter, tiny_model, token_batch
from transformers import AutoModelForCausalLM

from lpt import LatePromptClassifier
from lpt.backbones.families import FAMILIES
from lpt.backbones.pretrained import find_pretrained
from lpt.config.command_line import check_command_line
from lpt.generators import GENERATORS, build_generator
from lpt.late_prompt import LateMethod, LatePromptModel
from lpt.methods import METHODS, build_method

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))), "experiments/README.md"]


def commands(page):
    """What stands behind `python train.py` in a page, but for commands with a gap to fill in."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^python train\.py\b(.*)$|`python train\.py\b([^`]*)`", text, re.MULTILINE)
    given = [of_block or of_line for of_block, of_line in found]
    return [command.replace("\n", " ") for command in given if not re.search(r"<|\$s\b|\.\.\.", command)]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_can_be(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    for command in commands(page):
        check_command_line(shlex.split(command.replace("$HOME", str(tmp_path)), comments=True))


def test_commands_are_found():
    found = {page: len(commands(page)) for page in PAGES}
    assert sum(found.values()) > 50
    assert "-m hydra/launcher=submitit_slurm seed=13,21,42 trainer.nodes=2" in " ".join(commands("docs/sweeps.md"))


def run_example(page, about, **names):
    """Run the one Python example of a page that speaks of `about`; the names it leaves behind."""
    examples = re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (example for example in examples if about in example)
    exec(code, names)
    return names


@pytest.fixture(autouse=True)
def registers_stay_as_they_are(monkeypatch):
    for register, name in ((FAMILIES, "stablelm"), (GENERATORS, "mine"), (METHODS, "mine")):
        monkeypatch.setitem(register, name, None)


def test_a_family_of_ones_own_is_the_stock_forward():
    run_example("docs/backbones.md", "FAMILIES")
    model = tiny_model("stablelm", num_key_value_heads=1)
    ids, mask = token_batch()
    for layer in (1, LAYERS):
        method = LateMethod(model, layer)
        with torch.no_grad():
            split = method.token_logits(ids, mask, mask.sum(1) - 1)
            stock = model(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(split[mask.bool()], stock[mask.bool()], atol=2e-5, rtol=1e-4)


def test_a_method_of_ones_own_trains_the_norms_of_layers_k_to_L():
    run_example("docs/methods.md", "NormTuning")
    method = build_method("mine", tiny_model("llama"), layer=3)
    ids, mask = token_batch()
    method(ids, mask, mask.sum(1) - 1).sum().backward()
    found = {name for name, p in method.named_parameters() if p.grad is not None}
    norms = {f"model.layers.{i}.{norm}_layernorm.weight" for i in (2, 3) for norm in ("input", "post_attention")}
    assert found == {f"backbone.model.{name}" for name in norms | {"model.norm.weight"}}


def test_a_generator_of_ones_own_writes_the_prompt():
    run_example("README.md", "ScaledPrompt")
    generator = build_generator("mine", HIDDEN, prompt_length=5, bottleneck=4)
    h, summary, mask = torch.randn(2, 7, HIDDEN), torch.tensor([0, 6]), torch.ones(2, 7, dtype=torch.bool)
    first, second = generator(h, summary, mask)
    torch.testing.assert_close(first / h[0, 0].norm(), second / h[1, 6].norm())


def test_the_method_alone_works_on_a_hugging_face_model(monkeypatch):
    tiny = tiny_model("gpt2", num_hidden_layers=8)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda name: {"gpt2": tiny}[name])
    ids, mask = token_batch()
    batch = {"input_ids": ids, "attention_mask": mask, "readout_position": mask.sum(1) - 1}
    made = run_example("README.md", "AutoModelForCausalLM", **batch)
    assert isinstance(made["model"], LatePromptModel)
    assert made["logits"].shape == (len(ids), tiny.config.vocab_size)


@pytest.mark.parametrize(
    ("page", "about", "template"),
    [("README.md", 'from_pretrained("runs/', "{a} It was"), ("docs/tasks.md", "A man sleeps", "{a} {b} It was")],
)
def test_a_trained_adapter_classifies_texts_and_pairs(tmp_path, monkeypatch, page, about, template):
    config = replace(tiny_adapter(tmp_path, "llama"), template=template)
    classifier = LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32)
    classifier.save_pretrained(tmp_path / "runs" / "<folder>" / "adapter")
    monkeypatch.chdir(tmp_path)
    run_example(page, about, classifier=classifier.eval())
