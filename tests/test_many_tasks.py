"""Many tasks over one reading say what each of them says alone."""

from dataclasses import replace

import pytest
import torch
from tiny import DECODERS, tiny_adapter, tiny_model

from lpt import LatePromptClassifier, MultiTaskClassifier
from lpt.backbones.families import FAMILIES
from lpt.backbones.pretrained import find_pretrained
from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError

TEXTS = ["a good film", "the film was dull never again", "it", "fine plot " * 10, "bad", "a good film"]
READ_ONLY = {"read_only": True}
LORA = {"rank": 2, "alpha": 4, "targets": "all"}
# What differs: method, layer, whether it reads only, head, the template's end, labels.
TASKS = {
    "prompt": {},
    "late prompt": {
        "settings": {"layer": 2, "generator": "appg", "prompt_length": 2, "bottleneck": 4},
        "template": " : {}",
    },
    "full": {"method": "full", "settings": {"layer": 3}, "head": "linear", "template": " plot {}"},
    "bias": {"method": "bitfit", "settings": {"layer": 2}, "head": "linear"},
    "everything": {"method": "full", "settings": {}, "head": "linear"},
    "lora": {"method": "lora", "settings": {"layer": 1, **LORA}, "head": "linear", "labels": ["a", "b", "c"]},
    "prompts": {"method": "prompt_tuning", "settings": {"prompt_length": 2}},
    "ladder": {"method": "ladder", "settings": {"layer": 2, "reduction": 2}, "template": " : {}"},
    "probe": {"method": "state_probe", "settings": {"layer": 3}, "head": "linear"},
}
TASKS_THAT_READ_ONLY = {
    "once": {"settings": {"layer": 3, "prompt_length": 3, "generator": "npg", "bottleneck": 4, **READ_ONLY}},
    "once, mppg": {
        "settings": {"layer": 2, "generator": "mppg", "bottleneck": 4, **READ_ONLY},
        "template": " never {}",
    },
    "once, lora": {
        "method": "lora",
        "settings": {"layer": 2, **LORA, **READ_ONLY},
        "head": "linear",
        "template": " the film {}",
    },
    "once, full": {"method": "full", "settings": {"layer": 3, **READ_ONLY}, "head": "linear"},
    "once, prefix": {
        "method": "p_tuning_v2",
        "settings": {"prompt_length": 2, "layer": 2, **READ_ONLY},
        "template": " {}",
    },
    "once, in many layers": {
        "method": "spt",
        "settings": {"layer": 2, "bottleneck": 4, **READ_ONLY},
        "template": " the film {}",
    },
    "once, all": {
        "method": "lpt_lora",
        "settings": {"layer": 4, "generator": "appg", "bottleneck": 4, **LORA, **READ_ONLY},
    },
}


def adapters(folder, family, chosen):
    """Name -> folder of a stirred adapter of each task, and its own answers."""
    base = tiny_adapter(folder, family)
    if "bias" in chosen and family == "llama":
        chosen = {name: task for name, task in chosen.items() if name != "bias"}
        chosen["whole answers"] = {"head": "continuation", "label_words": {"bad": "terrible film", "good": "great"}}
        chosen["whole answers, once"] = chosen["whole answers"] | TASKS_THAT_READ_ONLY["once"]
    made = {}
    for number, (name, task) in enumerate(chosen.items()):
        end = task.get("template", "It was {}").format("" if family in DECODERS else "{mask} .").rstrip()
        labels = task.get("labels", base.labels)
        config = replace(base, **task | {"template": f"{{a}} {end}".rstrip(), "labels": labels}, task=name)
        torch.manual_seed(number)
        classifier = LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32)
        with torch.no_grad():
            for parameter in classifier.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        classifier.save_pretrained(folder / name)
        made[name] = (folder / name, classifier.predict(TEXTS))
    return made


@pytest.fixture(scope="module", params=["llama", "bert"])
def made(request, tmp_path_factory):
    return adapters(tmp_path_factory.mktemp("many"), request.param, TASKS | TASKS_THAT_READ_ONLY)


@pytest.fixture(scope="module")
def many(made):
    return MultiTaskClassifier([folder for folder, _ in made.values()], "cpu", "32")


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_all_tasks_together_say_what_each_says_alone(made, many, batch_size):
    found = many.predict(TEXTS, batch_size=batch_size)
    assert list(found) == list(made)
    for name, (_, expected) in made.items():
        same(found[name], expected)


@pytest.mark.parametrize("family", [name for name in DECODERS if name not in ("llama", "qwen2")])
def test_tails_behind_a_text_are_read_as_if_each_were_alone_in_every_family(family, tmp_path):
    chosen = {name: TASKS[name] for name in ("prompt", "late prompt")}
    if FAMILIES[family].keys_values is not None:
        chosen |= {name: TASKS_THAT_READ_ONLY[name] for name in ("once", "once, mppg")}
    made = adapters(tmp_path, family, chosen)
    found = MultiTaskClassifier([folder for folder, _ in made.values()], "cpu", "32").predict(TEXTS)
    for name, (_, expected) in made.items():
        same(found[name], expected)


def test_what_tasks_share_of_a_text_is_read_once(made, many, monkeypatch):
    widths, embed = [], SplitBackbone.embed

    def counted(self, input_ids, attention_mask=None):
        widths.append(input_ids.shape[1])
        return embed(self, input_ids, attention_mask)

    monkeypatch.setattr(SplitBackbone, "embed", counted)
    names = ["prompt", "late prompt", "once", "once, mppg", "once, all"]
    many.predict(["a good film"], names)
    templates = {many.tasks[name].template for name in names}
    if many.tasks["once"].template.endswith("It was"):  # a decoder: one pass over the text and three different ends
        assert widths == [len(["a", "good", "film", "It", "was", ":", "never"])]
    else:
        assert len(widths) == len(templates)


def test_rows_of_different_tasks_are_answered_in_one_call_in_their_order(made, many):
    names = list(made)
    rows = [(names[i % len(names)], TEXTS[i % len(TEXTS)]) for i in range(3 * len(names))]
    same(many.predict_rows(rows, batch_size=4), [made[name][1][TEXTS.index(text)] for name, text in rows])
    assert many.predict_rows([]) == []


def test_what_is_remembered_says_the_same_for_any_task_and_stays_within_its_bytes(made):
    remembering = MultiTaskClassifier([folder for folder, _ in made.values()], "cpu", "32", remember=60_000)
    for names in (list(made)[:1], list(made)[::-1], None):
        found = remembering.predict(TEXTS[::-1], names, batch_size=4)
        for name, answers in found.items():
            same(answers[::-1], made[name][1])
    memory = remembering._memory
    assert 0 < memory.bytes == sum(row.bytes for row in memory.rows.values()) <= 60_000


def test_a_text_that_is_remembered_is_not_read_again(made, monkeypatch):
    folder = next(folder for name, (folder, _) in made.items() if name == "once")
    remembering = MultiTaskClassifier([folder], "cpu", "32", remember=10**7)
    first = remembering.predict(TEXTS)
    monkeypatch.setattr("lpt.backbones.split.SplitBackbone.read_through", None)
    assert remembering.predict(TEXTS) == first


def test_the_backbone_is_there_once(made, many):
    backbone = {
        p.data_ptr(): p.numel()
        for p in tiny_model(find_pretrained(many.tasks["prompt"].backbone).config.model_type).parameters()
    }
    held, trained = {}, 0
    for name, classifier in many._classifiers.items():
        modules = [classifier, *(classifier.method.backbone.twins or ())]
        held |= {p.data_ptr(): p.numel() for module in modules for p in module.parameters()}
        trained += sum(p.numel() for p in classifier.parameters() if p.requires_grad)
        assert name in made
    assert sum(held.values()) <= sum(backbone.values()) + trained


def test_a_single_text_gives_a_single_prediction_of_each_task(made, many):
    found = many.predict(TEXTS[1], ["prompt"])
    assert list(found) == ["prompt"]
    same([found["prompt"]], made["prompt"][1][1:2])


def test_rows_may_come_one_by_one_and_in_pairs_of_lists(made, many):
    rows = [(name, text) for text in TEXTS[:2] for name in ("once", "prompt")]
    same(many.predict_rows(iter(rows)), many.predict_rows([list(row) for row in rows]))
    assert len(many.predict_rows(iter(rows))) == 4


def test_tasks_can_be_added_and_removed(made):
    names = list(made)[:2]
    few = MultiTaskClassifier({"one": made[names[0]][0]}, "cpu", "32")
    assert few.add(made[names[1]][0], "two") == "two"
    same(few.predict(TEXTS)["two"], made[names[1]][1])
    few.remove("one")
    assert list(few.tasks) == ["two"]
    with pytest.raises(LptError, match="'two' is the only task"):
        few.remove("two")


def test_a_classifier_in_memory_is_taken_too_and_stays_as_it_is(made):
    classifier = LatePromptClassifier.from_pretrained(made["once"][0], "cpu", "32")
    few = MultiTaskClassifier([classifier], "cpu", "32")
    same(few.predict(TEXTS)["once"], made["once"][1])
    same(classifier.predict(TEXTS), made["once"][1])


def test_what_cannot_be_is_refused(made, many, tmp_path):
    folder = made["prompt"][0]
    with pytest.raises(LptError, match=r"there is no task 'promt'; did you mean 'prompt'\?"):
        many.predict(TEXTS, ["promt"])
    with pytest.raises(LptError, match="there is no task 'nothing'"):
        many.predict_rows([("nothing", "a")])
    with pytest.raises(LptError, match="two adapters named 'prompt'"):
        MultiTaskClassifier([folder, folder])
    with pytest.raises(LptError, match="got no adapters"):
        MultiTaskClassifier([])
    with pytest.raises(LptError, match=r"texts\[4097\]: task .* takes one text per row"):
        many.predict(["a"] * 4097 + [("a", "b")], ["prompt"])
    with pytest.raises(LptError, match=r"texts\[2\]: task .* takes one text per row"):
        many.predict_rows([("once", "a"), ("prompt", "a"), ("prompt", ("a", "b"))])
    for wrong, message in (
        (lambda: MultiTaskClassifier(str(folder)), "takes a list of adapters"),
        (lambda: MultiTaskClassifier([folder], remember="1GB"), "remember is '1GB'; give a number of bytes"),
        (lambda: MultiTaskClassifier([folder], remember=-1), "remember is -1; give"),
        (lambda: many.predict(TEXTS, "prompt"), r"tasks is 'prompt'; give a list of names: \['prompt'\]"),
        (lambda: many.predict(3), "texts is int; give a text, or a list of texts"),
        (lambda: many.predict(TEXTS, batch_size=0), "batch_size is 0; give a number of rows from 1 on"),
        (lambda: many.predict_rows(["prompt"]), r"rows\[0\] is 'prompt'; give pairs of a task and a text"),
    ):
        with pytest.raises(LptError, match=message):
            wrong()
    other = tiny_adapter(tmp_path, "gpt2")
    LatePromptClassifier(other, find_pretrained(other.backbone), torch.float32).save_pretrained(tmp_path / "other")
    with pytest.raises(LptError, match="one MultiTaskClassifier has one backbone"):
        MultiTaskClassifier({"a": folder, "b": tmp_path / "other"})
