"""What `resolve` makes of a composition."""

import re
import subprocess
import sys
from functools import cache
from typing import get_type_hints

import pytest
from groups import choices
from omegaconf import OmegaConf

from lpt.config.candidates import candidates, method_of
from lpt.config.compose import compose_points
from lpt.config.declarations import declared
from lpt.config.resolve import resolve
from lpt.config.schema import (
    CONF_DIR,
    Config,
)
from lpt.errors import ConfigError

CANDIDATES = candidates(declared())


def composed(*overrides):
    (cfg,) = compose_points([overrides])
    return cfg


@pytest.fixture(scope="module")
def default():
    return composed()


@pytest.fixture
def plain(default):
    """The default composition as plain containers, to put mistakes in."""
    return OmegaConf.create(OmegaConf.to_container(default))


def complaints(cfg) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(cfg)
    return caught.value.complaints


def test_the_defaults_are_the_first_command_of_the_readme(default):
    config = resolve(default)
    assert (config.backbone.name, config.task.name, config.generator.name) == ("smollm2-135m", "film_reviews", "npg")
    assert (config.fewshot.protocol, config.fewshot.k) == ("total", 400)
    assert (config.lpt.layer, config.lpt.prompt_length, config.seed, config.fewshot.seed) == (None, 5, 13, 13)


def test_one_seed_is_for_all_unless_the_draw_has_its_own():
    assert resolve(composed("seed=21")).fewshot.seed == 21
    assert resolve(composed("seed=21", "fewshot.seed=3")).fewshot.seed == 3


def test_numbers_may_be_written_as_text_and_with_an_exponent():
    config = resolve(composed("optim.lr='1e-3'", "optim.weight_decay=1e-2", "trainer.precision=32", "lpt.layer='7'"))
    assert (config.optim.lr, config.optim.weight_decay) == (1e-3, 1e-2)
    assert (config.trainer.precision, config.lpt.layer) == ("32", 7)


def test_lists_and_mappings_come_from_the_command_line_with_numbers_as_keys():
    config = resolve(
        composed(
            "task=custom",
            "task.files.train=my reviews.csv",
            "task.labels=[bad,good]",
            "task.files.values={1: bad, 5: good}",
            "task.label_words={bad: terrible, good: great}",
        )
    )
    assert config.task.labels == ["bad", "good"]
    assert config.task.files.values == {"1": "bad", "5": "good"}
    assert config.task.label_words == {"bad": "terrible", "good": "great"}
    assert config.task.files.train == "my reviews.csv"


def test_numbers_are_good_label_names_and_words(plain):
    plain.task = {"labels": [1, 2], "label_words": {1: 10, 2: 20}, "source": "files", "files": {"train": "x.csv"}}
    config = resolve(plain)
    assert config.task.labels == ["1", "2"]
    assert config.task.label_words == {"1": "10", "2": "20"}


def test_a_label_or_its_word_that_yaml_reads_as_a_truth_value_is_refused(plain):
    words = OmegaConf.create("{rotten: No, fresh: 'Yes'}")
    assert words.rotten is False  # what YAML makes of it
    plain.task.label_words = words
    assert complaints(plain) == [
        "task.label_words: the word for 'rotten' is read as the truth value False, as yes, no, on, off, true and false "
        "are; put it in quotes"
    ]
    plain.task.labels = OmegaConf.create("[No, 'Yes']")
    plain.task.files.values = OmegaConf.create("{0: off, 1: 'on'}")
    plain.task.label_words.rotten = "No"
    assert complaints(plain)[:2] == [
        "task.labels: label 1 is read as the truth value False, as yes, no, on, off, true and false are; put it in "
        "quotes",
        "task.files.values: the label for 0 is read as the truth value False, as yes, no, on, off, true and false are; "
        "put it in quotes",
    ]
    plain.task.labels, plain.task.files.values = ["rotten", "fresh"], None
    assert resolve(plain).task.label_words == {"rotten": "No", "fresh": "Yes"}


def test_all_complaints_come_at_once(plain):
    plain.lpt.layr = 3
    plain.lpt.layer = 0
    plain.optim.lr = -1
    plain.zzz = {"a": 1}
    assert complaints(plain) == [
        "lpt.layr=3: there is no option lpt.layr; did you mean 'lpt.layer'?",
        f"zzz={{'a': 1}}: there is no option zzz; there are {', '.join(get_type_hints(Config))}",
        "lpt.layer=0 must be at least 1 (layers are numbered 1..L)",
        "optim.lr=-1.0 must be greater than 0",
    ]


def test_what_must_be_given_is_named(plain):
    plain.backbone = {"name": "???", "path": "???"}
    assert complaints(plain) == [
        "backbone.name is not set; give backbone.name=<value>",
        "backbone.path is not set; give backbone.path=<value>",
    ]


def test_a_wrong_type_is_told_in_words(plain):
    plain.trainer.devices = "two"
    assert complaints(plain) == ["trainer.devices must be a whole number"]


def test_zero_shot_does_not_go_with_a_head_that_must_be_trained():
    assert complaints(composed("method=zero_shot", "head=linear")) == [
        "method=zero_shot cannot use head=linear, which would stay untrained; use head=label_words"
    ]


def test_the_rate_of_a_linear_head_is_a_rate():
    assert complaints(composed("head=linear", "head.lr=0")) == ["head.lr=0.0 must be greater than 0"]


def test_a_regression_has_no_classes_to_draw_from():
    assert complaints(composed("task=stsb", "fewshot=per_class")) == [
        "fewshot=per_class draws rows of each class, and task stsb has none (task.value_range); use fewshot=total or "
        "fewshot=full"
    ]
    assert resolve(composed("task=stsb", "fewshot=total")).task.value_range == [0.0, 5.0]


# Methods and their options


@cache
def of_method(method, *overrides):
    return composed(f"method={method}", *overrides)


@pytest.mark.parametrize(
    ("method", "option", "complaint"),
    [
        ("lpt", "method.rank=2",
         "method.rank=2: there is no option method.rank: method=lpt has none; method=lora or lpt_lora has"),
        ("prompt_tuning", "lpt.layer=1",
         "lpt.layer=1: method=prompt_tuning begins at the input; remove it, or use method=lpt"),
        ("lora", "method.prompt_length=4",
         "method.prompt_length=4: there is no option method.prompt_length: method=lora has none; "
         "method=prompt_tuning or p_tuning_v2 or s_idpg has"),
        ("lora", "method.rnk=4",
         "method.rnk=4: there is no option method.rnk; did you mean 'method.rank'?"),
        ("lora", "method.rank=0", "method.rank=0 must be at least 1"),
        ("lora", "method.alpha=0", "method.alpha=0 must be at least 1"),
        ("lora", "method.dropout=1", "method.dropout=1.0 must be 0 or more and less than 1"),
        ("lora", "method.targets=some",
         "method.targets=some is not known; choose one of attention, all"),
        ("lora", "lpt.layer=0", "lpt.layer=0 must be at least 1 (layers are numbered 1..L)"),
        ("s_idpg", "method.bottleneck=0", "method.bottleneck=0 must be at least 1"),
        ("p_tuning_v2", "method.prompt_length=0", "method.prompt_length=0 must be at least 1"),
        ("state_probe", "head.name=label_words",
         "method=state_probe reads no words, so it needs head=linear, not label_words"),
        ("linear_probe", "head.name=label_words",
         "method=linear_probe trains the head alone, so it needs head=linear, not label_words"),
        ("lora", "head.lr=0.01", "head.lr=0.01 goes with head=linear; head=label_words trains nothing of its own"),
        ("lora", "generator.init=states",
         "generator.init=states goes with method=prompt_tuning, or with generator=inception or npg or phm or none "
         "of a method that has generators, such as lpt; not with generator=npg method=lora"),
    ],
)  # fmt: skip
def test_what_a_method_does_not_have_is_refused(method, option, complaint):
    plain = OmegaConf.create(OmegaConf.to_container(of_method(method)))
    changed = OmegaConf.merge(plain, OmegaConf.from_dotlist([option]))
    if option.startswith("head.name"):
        changed.head.lr = None
    assert complaints(changed) == [complaint]


@pytest.mark.parametrize("method", choices("method"))
def test_every_method_can_be_chosen_by_its_name_and_has_the_options_that_its_class_declares(method):
    config = resolve(of_method(method))
    assert config.method.name == method
    assert config.method.own() == {option.name: option.default for option in declared()["method"][method].options}


def test_a_method_brings_its_own_learning_rate_and_the_command_line_has_the_last_word():
    assert resolve(composed()).optim.lr == resolve(of_method("lpt_lora")).optim.lr == 3e-3
    assert resolve(of_method("lora")).optim.lr == 4e-4
    for order in (["optim.lr=0.1", "method=lora"], ["method=lora", "optim.lr=0.1"]):
        assert resolve(composed(*order)).optim.lr == 0.1


def test_what_cannot_work_alone_chooses_what_it_needs():
    for chosen in ("method=linear_probe", "backbone=minilm-l6"):
        head = resolve(composed(chosen)).head
        assert (head.name, head.lr) == ("linear", 1e-2)
    assert resolve(composed("backbone=minilm-l6", "head=label_words")).head.name == "label_words"


def test_a_prompt_can_start_from_the_vocabulary_where_it_is_the_same_for_every_input():
    for static in ("generator=none", "method=prompt_tuning"):
        assert resolve(composed(static, "generator.init=vocabulary")).generator.init == "vocabulary"


# Benches


def test_a_bench_can_measure_every_method_as_it_is_late_read_only_and_cached():
    """Nothing has two names: baselines by the stock forward pass have their own.

    What has a trunk can be cached, as can what reads the text once.
    """
    stock = {"full", "lora", "alora", "prompt_tuning", "per_label"}
    with_trunk = {
        "lpt",
        "lpt_lora",
        "deep_lpt",
        "spt",
        "iapt",
        "adapterdrop",
        "linear_probe",
        "state_probe",
        "zero_shot",
    }
    with_trunk |= {f"late_{name}" for name in ("full", "lora", "adapter", "bitfit", "p_tuning_v2", "ladder")}
    read_only = {f"{name}_read_only" for name in with_trunk | set(choices("method"))}
    expected = stock | set(choices("method")) | with_trunk | read_only
    expected |= {f"{name}_cached" for name in with_trunk | read_only}
    assert set(CANDIDATES) == expected
    assert len(CANDIDATES) == len(expected)
    assert {method_of(name) for name in CANDIDATES} == {*choices("method"), "alora", "per_label"}


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["bench.vary=lpt.layr", "bench.values=[1]"],
         "bench.vary=lpt.layr: there is no option lpt.layr; did you mean 'lpt.layer'?"),
        (["bench.vary=task.label_words.bad", "bench.values=[1]"],
         "bench.vary=task.label_words.bad: it must be an option of one value"),
        (["bench.vary=lpt", "bench.values=[1]"], "bench.vary=lpt: it must be an option of one value"),
        (["bench.vary=task.labels", "bench.values=[1]"], "bench.vary=task.labels: it must be an option of one value"),
        (["bench.vary=trainer.precision", "bench.values=[32]"],
         "bench.vary=trainer.precision cannot be varied; number formats are listed in bench.precisions"),
        (["bench.vary=lpt.layer"], "bench.vary=<option> and bench.values=[<its values>] go together"),
        (["bench.values=[1]"], "bench.vary=<option> and bench.values=[<its values>] go together"),
        (["bench.methods=[lpt,per_label]"], "bench.methods=per_label only evaluates; give bench.step=evaluate"),
        (["bench.methods=[]"], "bench.methods=[] leaves nothing to measure"),
        (["bench.precisions=[]"], "bench.precisions=[] leaves nothing to measure"),
        (["bench.methods=[lpt,lorra]"],
         f"bench.methods=lorra is not known; choose one of {', '.join(CANDIDATES)}; did you mean 'lora'?"),
        (["bench.precisions=[fp32]"],
         "bench.precisions=fp32 is not known; choose one of auto, 32, bf16, 16; did you mean '32'?"),
        (["bench.step=evaluation"],
         "bench.step=evaluation is not known; choose one of train, evaluate; did you mean 'evaluate'?"),
        (["bench.steps=0"], "bench.steps=0 must be at least 1"),
    ],
)  # fmt: skip
def test_a_bench_that_cannot_be_is_refused(plain, overrides, complaint):
    assert complaints(OmegaConf.merge(plain, OmegaConf.from_dotlist(overrides))) == [complaint]


def test_labels_are_scored_one_by_one_where_a_bench_evaluates(plain):
    plain.bench = {"methods": ["per_label"], "step": "evaluate"}
    assert resolve(plain).bench.methods == ["per_label"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF_DIR / "experiment").glob("bench_*.yaml")))
def test_every_bench_of_ours_is_one_that_can_be(name):
    config = resolve(composed(f"experiment={name}"))
    assert config.lpt.layer is not None
    assert "lpt_cached" in config.bench.methods


@pytest.mark.parametrize("name", [name for name in choices("backbone") if "/" not in name])
def test_every_backbone_is_called_what_its_file_is_and_says_how_many_layers_it_has(name):
    backbone = resolve(composed(f"backbone={name}")).backbone
    assert backbone.name == name
    assert re.fullmatch(r"[\w-]+/[\w.-]+|wheel://.+", backbone.path)
    assert re.search(r"^# .*\b\d+ layers.*H=\d+", (CONF_DIR / "backbone" / f"{name}.yaml").read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("roberta-base", 124_697_433), ("llama-1b", 1_235_814_400)],
)
def test_random_backbones_have_the_size_of_what_they_are_called_after(name, parameters):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from lpt.backbones.pretrained import find_pretrained

    found = find_pretrained(resolve(composed(f"backbone=random/{name}")).backbone.path)
    auto = AutoModelForCausalLM if found.family.causal else AutoModelForMaskedLM
    with torch.device("meta"):  # gigabytes, otherwise
        assert auto.from_config(found.config).num_parameters() == parameters


def test_the_schema_costs_no_torch():
    code = "import sys, lpt.config.command_line; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
