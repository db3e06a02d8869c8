"""What is exported gives the classifier's numbers without this project, or is refused with the reason."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from places import REPOSITORY
from tiny import tiny_adapter
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForTokenClassification

from lpt import LatePromptClassifier, cli
from lpt.backbones.pretrained import find_pretrained
from lpt.errors import LptError
from lpt.export import export
from lpt.export.operators import cummax, nanmedian
from lpt.export.probes import INPUTS, inputs
from lpt.export.program import Probabilities

TEXTS = ["it was a film", "the plot was never good and a film is bad , the film", "dull", "is it fine ?"]


def saved(folder, shape, headless=False, **changes):
    """A classifier over a tiny model, with every trained tensor away from where it starts, on disk."""
    config = replace(tiny_adapter(folder, shape), **changes)
    if headless:  # a backbone without LM head
        find_pretrained(config.backbone).load_model(torch.float32).base_model.save_pretrained(config.backbone)
    classifier = LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32)
    torch.manual_seed(1)
    for parameter in classifier.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    classifier.save_pretrained(folder / "adapter")
    return LatePromptClassifier.from_pretrained(folder / "adapter", "cpu", "32")


def lora(**settings):
    return {"method": "lora", "settings": {"layer": 3, "targets": "all"} | settings}


def run_readme(folder, texts):
    """The probabilities that the README's code prints for these texts, in a process without torch."""
    (code,) = re.findall(r"```python\n(.+?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = re.sub(r"^texts = .*$", lambda _: f"texts = {texts!r}", code, flags=re.MULTILINE)
    code += "\nimport sys; assert not {'torch', 'transformers', 'lpt'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(re.search(r"\{.*", line)[0].replace("'", '"')) for line in done.stdout.splitlines()]


PROGRAMS = {
    "read only, whole answers, normalized": (
        "llama",
        {
            "head": "continuation",
            "settings": {"layer": 4, "read_only": True, "generator": "npg", "bottleneck": 4, "normalize": True},
        },
    ),
    "pairs on an encoder, pooled, calibrated": (
        "roberta",
        {
            "template": "{mask} : {a} , {b}",
            "settings": {"layer": 3, "generator": "mppg", "bottleneck": 4},
            "temperature": 2.5,
        },
    ),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_onnx_gives_the_probabilities_of_the_classifier_with_onnxruntime_and_tokenizers_alone(
    case, tmp_path, monkeypatch
):
    import onnxruntime

    shape, changes = PROGRAMS[case]
    classifier = saved(tmp_path, shape, **changes)
    output, files = tmp_path / "onnx", ["README.md", "config.json", "model.onnx", "tokenizer.json"]
    if classifier.template.pair:  # as if it were above what one file can hold
        monkeypatch.setattr("lpt.export.program.WITHIN_ONE_FILE", 0)
        files.insert(3, "model.onnx.data")
    assert export(tmp_path / "adapter", "onnx", output) <= 1e-4
    assert sorted(file.name for file in output.iterdir()) == files
    rows = [(text, "a film .") if classifier.template.pair else (text,) for text in TEXTS]
    expected = classifier.predict_proba(rows)
    assert expected.std(0).min() > 1e-3  # texts do differ
    session = onnxruntime.InferenceSession(output / "model.onnx")
    for some in ([0], [1, 2], [2, 0, 3], [0, 1, 2, 3]):  # numbers of rows, lengths and padding
        given = inputs(classifier, [rows[i] for i in some])
        found = session.run(None, {name: x.numpy() for name, x in zip(INPUTS, given, strict=True)})[0]
        np.testing.assert_allclose(found, expected[some], atol=1e-4)
    by_readme = [list(row.values()) for row in run_readme(output, rows)]
    np.testing.assert_allclose(by_readme, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ("distilbert", lora(read_only=True) | {"head": "linear"}),
        ("gpt2", {"method": "p_tuning_v2", "settings": {"layer": 2}, "head": "vocabulary"}),
        ("opt", {"method": "lpt_lora", "settings": {"layer": 2, "read_only": True, "bottleneck": 4}}),
        ("bert", {"method": "iapt", "settings": {"layer": 2, "generator": "attentive", "bottleneck": 4}}),
        ("gpt2", {"method": "ladder", "settings": {"layer": 2, "reduction": 2}}),
        ("bert", {"method": "state_probe", "settings": {"layer": 3}, "head": "linear"}),
    ],
)
def test_a_torch_program_gives_the_probabilities_of_the_classifier(shape, changes, tmp_path):
    classifier = saved(tmp_path, shape, **changes)
    export(tmp_path / "adapter", "torch", tmp_path / "torch")
    program = torch.export.load(tmp_path / "torch" / "model.pt2").module()
    expected = classifier.predict_proba(TEXTS)
    for some in ([0], [1, 2], [0, 1, 2, 3]):
        found = program(*inputs(classifier, [(TEXTS[i],) for i in some]))
        np.testing.assert_allclose(found.detach(), expected[some], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "read_only"), [("llama", False), ("llama", True), ("gpt2", False), ("gpt2", True), ("bert", False)]
)
def test_lora_loads_in_plain_peft_and_gives_the_same_logits(shape, read_only, tmp_path):
    classifier = saved(tmp_path, shape, **lora(read_only=read_only))
    export(tmp_path / "adapter", "peft", tmp_path / "peft")
    auto = AutoModelForMaskedLM if shape == "bert" else AutoModelForCausalLM
    plain = auto.from_pretrained(classifier.config.backbone)
    about = json.loads((tmp_path / "peft" / "classifier.json").read_text())
    before, after = [], []
    with torch.no_grad():
        for text in TEXTS:
            ids, mask, position = inputs(classifier, [(text,)])
            before.append(plain(input_ids=ids, attention_mask=mask).logits[0, position[0], about["label_ids"]])
        model = peft.PeftModel.from_pretrained(plain, tmp_path / "peft").eval()
        for text in TEXTS:
            ids, mask, position = inputs(classifier, [(text,)])
            after.append(model(input_ids=ids, attention_mask=mask).logits[0, position[0], about["label_ids"]])
    expected = torch.tensor(classifier.predict_proba(TEXTS)).float()
    torch.testing.assert_close(torch.stack(after).softmax(1), expected, atol=1e-5, rtol=1e-4)
    assert (torch.stack(before).softmax(1) - expected).abs().max() > 1e-2  # it is LoRA that does it
    if shape == "llama":
        names = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
        assert bool(names["alora_invocation_tokens"]) == read_only
        assert all(name.startswith(("model.layers.2.", "model.layers.3.")) for name in names["target_modules"])


@pytest.mark.parametrize(("shape", "headless"), [("bert", True), ("llama", False)])
def test_a_linear_head_becomes_that_of_a_token_classification(shape, headless, tmp_path):
    classifier = saved(tmp_path, shape, headless, **lora(), head="linear")
    export(tmp_path / "adapter", "peft", tmp_path / "peft")
    plain = AutoModelForTokenClassification.from_pretrained(classifier.config.backbone, num_labels=2)
    model = peft.PeftModel.from_pretrained(plain, tmp_path / "peft").eval()
    for text in TEXTS:
        ids, mask, position = inputs(classifier, [(text,)])
        with torch.no_grad():
            found = model(input_ids=ids, attention_mask=mask).logits[0, position[0]].softmax(0)
        np.testing.assert_allclose(found, classifier.predict_proba([text])[0], atol=1e-5)


@pytest.mark.parametrize("read_only", [False, True])
def test_whole_answers_can_be_scored_by_plain_peft(read_only, tmp_path):
    saved(tmp_path, "llama", **lora(read_only=read_only), head="continuation")
    assert export(tmp_path / "adapter", "peft", tmp_path / "peft") < 1e-3
    assert len(json.loads((tmp_path / "peft" / "classifier.json").read_text())["answers"]) == 2


@pytest.mark.parametrize(
    ("shape", "format", "changes", "reason"),
    [
        ("bert", "peft", {}, "method=lpt trains more than LoRA"),
        ("bert", "peft", lora(read_only=True), "aLoRA is for decoders"),
        ("bert", "peft", lora() | {"head": "linear"}, "what the LM head makes of a state"),
        ("modernbert", "peft", lora() | {"head": "linear", "headless": True}, "more than a linear head"),
        ("llama", "peft", lora(read_only=True) | {"head": "linear"}, "head=linear is none"),
        ("llama", "peft", lora(read_only=True) | {"template": "It was {a}"}, "ends with the text itself"),
        ("deberta", "torch", {}, "method=lpt with head=label_words on a deberta cannot be written as a program"),
    ],
)
def test_what_a_format_cannot_express_is_refused_with_the_reason_and_leaves_nothing(
    shape, format, changes, reason, tmp_path
):
    saved(tmp_path, shape, **changes)
    with pytest.raises(LptError, match=reason):
        export(tmp_path / "adapter", format, tmp_path / "output")
    assert not list(tmp_path.glob("output*"))


def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    saved(tmp_path, "bert")
    forward = Probabilities.forward

    def sharper(self, input_ids, attention_mask, readout_position):
        return forward(self, input_ids, attention_mask, readout_position) ** 2

    monkeypatch.setattr(Probabilities, "forward", sharper)
    with pytest.raises(LptError, match="other probabilities than the classifier"):
        export(tmp_path / "adapter", "torch", tmp_path / "output")
    assert not list(tmp_path.glob("output*"))


def test_operators_that_onnx_lacks_are_as_torch_has_them():
    x = torch.tensor([[0, 3, 1, 5, 2], [4, 0, 0, 6, 6]])
    assert torch.equal(cummax(x, 1)[0], x.cummax(1).values)
    x = torch.tensor([[3.0, torch.nan, 1.0, 2.0, 7.0], [torch.nan, torch.nan, 4.0, torch.nan, torch.nan]])
    assert torch.equal(nanmedian(x, 1)[0], x.nanmedian(1).values)


def test_the_command_writes_a_folder_and_prints_the_difference(tmp_path, capsys):
    saved(tmp_path, "gpt2", **lora())
    cli.main(["export", str(tmp_path / "adapter"), "--format", "peft", "--output", str(tmp_path / "peft")])
    assert re.search(
        r"peft: loaded back .* largest difference of a class score \d\.\de-\d+\n$", capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["./none", "--format", "onnx", "--output", "new"], "none: there is no such folder"),
        (["none", "--format", "onnx", "--output", "."], ". exists; choose another folder"),
        (["none", "--format", "onnx", "--output", "x.onnx"], "an export is a folder"),
        (["none", "--format", "tflite", "--output", "new"], "invalid choice: 'tflite'"),
        (["adapter", "--format", "peft", "--output", "new"], "method=lpt trains more than LoRA"),
    ],
)
def test_bad_input_is_told_before_torch_is_imported(words, problem, tmp_path):
    saved(tmp_path, "bert")
    code = (
        f"import sys, lpt.cli\ntry: lpt.cli.main(['export', *{words!r}])\n"
        "finally: assert 'torch' not in sys.modules, 'torch is imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode != 0
    assert problem in done.stderr
    assert "torch is imported" not in done.stderr
