"""The documentation keeps its promises: commands can be typed, links lead somewhere, examples do what they say."""

import ast
import re
import shlex
from dataclasses import replace
from itertools import product

import pytest
import torch
import yaml
from places import REPOSITORY as ROOT
from tickets import tickets, write_tickets
from tiny import HIDDEN, LAYERS, tiny_adapter, tiny_model, token_batch
from transformers import AutoModelForCausalLM

from lpt import LatePromptClassifier, cli, hardware
from lpt.backbones.families import FAMILIES
from lpt.backbones.pretrained import find_pretrained
from lpt.config.command_line import check_command_line
from lpt.config.own_data import from_own_data
from lpt.generators import build_generator
from lpt.heads import LabelWordsHead
from lpt.late_prompt import LateMethod, LatePromptModel
from lpt.methods import build_method
from lpt.registry import GENERATORS, HEADS, METHODS

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "docs/*.ipynb", "experiments/**/*.md")
    for path in ROOT.glob(pattern)
)


def read(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.replace("\\n", "\n").replace('\\"', '"') if page.endswith(".ipynb") else text


def examples(page: str, language: str = "python") -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.+?)```", read(page), re.DOTALL)


# Commands


def commands(page: str, program: str) -> list[str]:
    """What follows `program` in a page, in code blocks and backticks, without commands that leave a gap to fill in."""
    text = read(page).replace("\\\n", " ")
    start = rf"{re.escape(program)}\b"
    found = re.findall(rf"^{start}(.*)$|`{start}([^`]*)`", text, re.MULTILINE)
    given = [(of_block or of_line).replace("\n", " ") for of_block, of_line in found]
    return [command for command in given if not re.search(r"\$s\b|\.\.\.", command)]


def plugin_files(page: str) -> dict[str, str]:
    """The Python examples of a page that register something, and the file that it says each is in."""
    codes = [code for code in examples(page) if "@register_" in code]
    return dict(zip(re.findall(r"^With this in `([\w.]+)`", read(page), re.MULTILINE), codes, strict=True))


TRAINING = ("python train.py", "lpt train", "lpt bench")
FIRST: dict[str, tuple[str, str]] = {}  # command -> page and program: pages repeat each other's
for page, program in product(PAGES, TRAINING):
    for command in commands(page, program):
        FIRST.setdefault(command, (page, program))


@pytest.mark.parametrize(("page", "program"), dict.fromkeys(FIRST.values()))
def test_every_training_and_bench_command_composes(page, program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    write_tickets(tmp_path / "tickets.csv", tickets(60, seed=1))
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    (tmp_path / "my_conf" / "task" / "mine.yaml").write_text(examples("docs/extending.md", "yaml")[0])
    for name, code in plugin_files(page).items():
        (tmp_path / name).write_text(code)
    for command in commands(page, program):
        if "<" not in command and FIRST[command] == (page, program):
            words = shlex.split(command.replace("$HOME", str(tmp_path)), comments=True)
            check_command_line(from_own_data(words)[0])


OTHERS = ("runs", "predict", "evaluate", "export", "report", "sweep", "cache")


@pytest.mark.parametrize(
    ("page", "program"), [point for point in product(PAGES, OTHERS) if commands(point[0], f"lpt {point[1]}")]
)
def test_every_other_command_of_lpt_has_the_options_it_is_given(page, program):
    for command in commands(page, f"lpt {program}"):
        words = shlex.split(command, comments=True)
        if not words:  # only named, as in "`lpt predict` labels texts"
            continue
        if words[-1].startswith("--") or words == ["resume"]:  # shown without its folder
            words.append("folder")
        cli._parser().parse_args([program, *words])


def test_commands_are_found():
    assert sum(len(commands(page, "python train.py")) for page in PAGES) > 70
    assert "-m hydra/launcher=submitit_slurm seed=13,21,42" in " ".join(commands("docs/sweeps.md", "python train.py"))
    assert " status runs/layers" in " ".join(commands("docs/cheatsheet.md", "lpt sweep"))


# Links


def anchors(page: str) -> set[str]:
    """What `#...` may follow the page's name in a link: its headings, as code hosts and the site write them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            found = anchors(str(file.resolve().relative_to(ROOT)))
            assert anchor in found, f"{page} links to {target}#{anchor}; there are {', '.join(sorted(found))}"


def test_every_page_is_in_the_navigation_of_the_site_and_on_its_first_page():
    nav = re.findall(r": ([\w/-]+\.md)\b", yaml.dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {page.removeprefix("docs/").replace(".ipynb", ".md") for page in PAGES if "/" in page}
    assert sorted(nav) == sorted(pages)
    listed = set(re.findall(r"\]\(([\w-]+)\.(?:md|ipynb)\)", read("docs/index.md")))
    assert listed == {name.removesuffix(".md") for name in pages if "/" not in name} - {"index"}


def test_the_readme_stays_short():
    assert len(read("README.md").split()) <= 1300


# Python examples


def run_example(page: str, about: str, **names):
    """Run the one Python example of a page that speaks of `about`.

    Returns:
        The names it leaves behind, and the value of its last line where that is an expression.
    """
    (code,) = (example for example in examples(page) if about in example)
    body = ast.parse(code).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), page, "exec"), names)
    return names, last and eval(compile(last, page, "eval"), names)


@pytest.fixture(autouse=True)
def registers_stay_as_they_are(monkeypatch):
    monkeypatch.setitem(FAMILIES, "stablelm", None)
    for registry in (METHODS, GENERATORS, HEADS):
        monkeypatch.setattr(registry, "_classes", dict(registry))


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


@pytest.mark.parametrize("biases", [True, False])
def test_a_method_of_ones_own_trains_the_norms_of_layers_k_to_L(biases):
    run_example("docs/extending.md", "NormTuning")
    method = build_method("norm_tuning", tiny_model("gpt2"), layer=3, biases=biases)
    ids, mask = token_batch()
    method(ids, mask, mask.sum(1) - 1).sum().backward()
    found = {name for name, p in method.named_parameters() if p.grad is not None}
    norms = ("h.2.ln_1", "h.2.ln_2", "h.3.ln_1", "h.3.ln_2", "ln_f")
    kinds = ("weight", "bias") if biases else ("weight",)
    assert found == {f"backbone.model.transformer.{norm}.{kind}" for norm in norms for kind in kinds}


def test_a_generator_of_ones_own_writes_the_prompt():
    run_example("docs/extending.md", "ScaledPrompt")
    generator = build_generator("scaled", HIDDEN, prompt_length=5, bottleneck=4, scale=0.5)
    h, summary, mask = torch.randn(2, 7, HIDDEN), torch.tensor([0, 6]), torch.ones(2, 7, dtype=torch.bool)
    first, second = generator(h, summary, mask)
    torch.testing.assert_close(first / h[0, 0].norm(), 0.5 * generator.prompt)
    torch.testing.assert_close(second / h[1, 6].norm(), 0.5 * generator.prompt)


def test_a_head_of_ones_own_scores_the_classes():
    run_example("docs/extending.md", "TemperedLabelWords")
    z, backbone = torch.randn(3, HIDDEN), LateMethod(tiny_model("llama")).backbone
    scores = HEADS["tempered"]([7, 8], temperature=2.0).scores(z, backbone)
    torch.testing.assert_close(scores, LabelWordsHead([7, 8]).scores(z, backbone) / 2)


def test_the_method_alone_puts_a_prompt_into_a_hugging_face_model(monkeypatch):
    tiny = tiny_model("gpt2", num_hidden_layers=8)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda name: {"gpt2": tiny}[name])
    ids, mask = token_batch()
    batch = {"input_ids": ids, "attention_mask": mask, "readout_position": mask.sum(1) - 1}
    names, _ = run_example("README.md", "AutoModelForCausalLM", **batch)
    model, logits = names["model"], names["logits"]
    assert isinstance(model, LatePromptModel)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"generator.{name}" for name in model.generator.state_dict()}
    stock = tiny(ids, attention_mask=mask).logits[torch.arange(len(ids)), batch["readout_position"]]
    assert logits.shape == stock.shape
    assert not torch.allclose(logits, stock, atol=1e-3)  # the prompt is seen
    kept = model.from_trunk(model.trunk(ids, mask), mask, batch["readout_position"])
    torch.testing.assert_close(logits, kept)


@pytest.mark.parametrize(
    ("page", "about", "template", "texts"),
    [
        ("README.md", 'from_pretrained("runs/', "{a} It was", ["A moving, funny film."]),
        ("docs/tasks.md", "A man sleeps", "{a} {b} It was", [("A man sleeps.", "A man rests.")]),
    ],
)
def test_a_trained_adapter_classifies_texts_and_pairs(tmp_path, monkeypatch, page, about, template, texts):
    monkeypatch.setattr(hardware, "fast_bf16", lambda accelerator: False)  # so that both compute in float32
    config = replace(tiny_adapter(tmp_path, "llama"), template=template)
    trained = LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32)
    trained.save_pretrained(tmp_path / "runs" / "<folder>" / "adapter")
    monkeypatch.chdir(tmp_path)
    _, (prediction,) = run_example(page, about, classifier=trained)
    (expected,) = trained.predict(texts)
    assert prediction.label == expected.label
    assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
