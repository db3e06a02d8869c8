"""The command line: every complaint at once, in the user's terms, and before anything is written."""

import json
import re
import shlex
from pathlib import Path
from typing import get_type_hints

import pytest
import slurm
from groups import choices, one_of
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from results import failed

from lpt.config.command_line import check_command_line
from lpt.config.compose import compose_points
from lpt.config.flags import assignment, read_arguments
from lpt.config.resolve import resolve
from lpt.config.resume import complete_arguments, restore, resumed_if_requeued, saved_config
from lpt.config.schema import CONF_DIR, Config
from lpt.errors import ConfigError
from lpt.registry import KINDS

GENERATORS = one_of("generator")
LPT_OPTIONS = "under lpt there are layer, prompt_length, bottleneck, read_only, dropout, trunk_dropout"


def complaints(line: str = "", *more: str) -> list[str]:
    """What is wrong with a command line, as a shell would split it."""
    try:
        check_command_line([*shlex.split(line), *more])
    except ConfigError as error:
        return error.complaints
    return []


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A config folder of the user's own; returns what writes an experiment file into it."""
    folder = tmp_path / "my conf, x"
    (folder / "experiment").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        (folder / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
        return f"--config-dir '{folder}' experiment={name}"

    return write


# What works as typed


@pytest.mark.parametrize(
    "line",
    [
        "",
        "backbone=gpt2-large lpt.layer=13",
        "backbone=random/roberta-base",
        "-m lpt.layer=4,8,12",
        "-m seed=1,2 trainer.devices=2 hydra.launcher.workers=2 hydra.launcher.retries=0",
        "seed=1,2 -m",
        "-m 'generator=glob(*)' 'optim.lr=choice(1e-3,1e-4)'",
        "+lpt.layer=3 ++optim.max_grad_norm=2 optim.lr='\"1e-3\"' trainer.precision=32 generator={dropout:0.1}",
        "task=rte task.label_words.entailment=Sure 'task.data_dir=/a folder/of mine'",
        "'task.template.encoder=\"{a} is {mask}\"'",
        "task=custom task.files.train=x.csv 'task.labels=[bad,good]' 'task.files.values={1: bad, 5: good}' "
        "'task.label_words={bad: terrible, good: great}'",
        "--cfg job task=custom",
        "--help task=nothing",
        "--hydra-help",
        "--info",
    ],
)
def test_a_right_command_line_passes(line):
    assert complaints(line) == []


GROUPS = {
    group: choices(group)
    for group in [*KINDS, *(path.name for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "experiment")]
}


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_command_in_the_header_of_an_experiment_is_sound(name, tmp_path, monkeypatch):
    if name == "search":
        pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    header = re.sub(r"\\\n# *", "", (CONF_DIR / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    commands = re.findall(r"^# +(?:python train\.py|lpt bench) (.+)$", header, re.MULTILINE)
    assert commands
    for command in commands:
        assert f"experiment={name}" in shlex.split(command)
        assert complaints(command) == []


def test_a_baseline_trains_at_its_own_rate_in_the_full_form_of_a_study():
    """LPT trains at the paper's: 5e-4 on full data, 1e-3 on few rows."""
    names = [name for name in choices("experiment") if not name.startswith(("small/", "bench", "search"))]
    lines = [[f"experiment={name}", f"method={method}"] for name in names for method in ("lpt", "lora")]
    rates = [cfg.optim.lr for cfg in compose_points(lines)]
    papers = [5e-4 if name.startswith("paper/full") else 1e-3 for name in names]
    assert dict(zip(names, zip(rates[::2], rates[1::2], strict=True), strict=True)) == {
        name: (rate, 4e-4) for name, rate in zip(names, papers, strict=True)
    }


@pytest.mark.parametrize("i", range(max(map(len, GROUPS.values()))))
def test_every_choice_of_every_group_composes(i):
    line = " ".join(f"{group}={names[i % len(names)]}" for group, names in GROUPS.items())
    assert complaints(f"--cfg job {line}") == []


# Wrong keys, types, options, ranges: each gets one complaint, and all come at once

UNREADABLE = {
    "=3": "=3: an option is written option=<value>",
    "lpt.layer": "lpt.layer: an option is written lpt.layer=<value>",
    "lpt.layer=3=4": "lpt.layer=3=4: this value needs quotes within quotes: 'lpt.layer=\"3=4\"'",
    "task.data_dir=~/x": "task.data_dir=~/x: write $HOME instead of ~",
    "~optim.lr": "~optim.lr: an option cannot be taken away; give it another value",
    "~task": "~task: an option cannot be taken away; give it another value",
    "generator=[npg,appg]": (
        "generator=[npg,appg]: choose one generator; to run one after the other, leave out the brackets and add the "
        "flag -m"
    ),
}
KEYS = {
    "lpt.layr=3": "lpt.layr=3: there is no option lpt.layr; did you mean 'lpt.layer'?",
    "lpt={layr: 3}": "lpt={layr: 3}: there is no option lpt.layr; did you mean 'lpt.layer'?",
    "lpt.xyz=3": f"lpt.xyz=3: there is no option lpt.xyz; {LPT_OPTIONS}",
    "layer=3": "layer=3: there is no option layer; did you mean 'lpt.layer'?",
    "optim.k=3": "optim.k=3: there is no option optim.k; did you mean 'fewshot.k'?",
    "optimm.lr=3": "optimm.lr=3: there is no option optimm; did you mean 'optim'?",
    "~foo": f"~foo: there is no option foo; there are {', '.join(get_type_hints(Config))}",
    "task.label_words.good=fine": (
        "task.label_words.good=fine: task.label_words has no 'good' yet; put + in front to add it"
    ),
    "+optim.lrr=3": "optim.lrr=3: there is no option optim.lrr; did you mean 'optim.lr'?",
    "++seeds=3": "seeds=3: there is no option seeds; did you mean 'seed'?",
}
TYPES = {
    "lpt.layer=abc": "lpt.layer=abc must be a whole number or null",
    "++trainer.max_steps=4.0": "++trainer.max_steps=4.0 must be a whole number or null",
    "fewshot={k: few}": "fewshot={k: few}: fewshot.k must be a whole number or null",
    "lpt.prompt_length=null": "lpt.prompt_length=null must be a whole number",
    "optim.lr=fast": "optim.lr=fast must be a number",
    "trainer.progress=maybe": "trainer.progress=maybe must be true or false",
    "trainer.devices=[0,1]": "trainer.devices=[0,1] must be a whole number",
    "task.labels=bad": "task.labels=bad must be a list, as in [a,b]",
    "lpt=null": f"lpt=null must be set by its own options: {LPT_OPTIONS.removeprefix('under lpt there are ')}",
}
CHOICES = {
    "generator=npgg": f"generator=npgg: there is no generator 'npgg'; {GENERATORS}; did you mean 'npg'?",
    "head=null": f"head=null: there is no head 'null'; {one_of('head')}",
    "method=3": f"method=3: there is no method '3'; {one_of('method')}",
    "+logger=csv": "+logger=csv: write logger=csv; + is for what is not there yet",
    "++fewshot=full": "++fewshot=full: write fewshot=full; + is for what is not there yet",
    "optim=sgd": f"optim=sgd: there is no optim 'sgd'; {one_of('optim')}",
    "hydra/launcher=slurm": (
        "hydra/launcher=slurm: there is no hydra/launcher 'slurm'; choose one of basic, local_queue, submitit_slurm; "
        "did you mean 'submitit_slurm'?"
    ),
    "trainer.precision=fp16": (
        "trainer.precision=fp16 is not known; choose one of auto, 32, bf16, 16; did you mean 'bf16'?"
    ),
}
RANGES = {
    "lpt.layer=0": "lpt.layer=0 must be at least 1 (layers are numbered 1..L)",
    "lpt.prompt_length=0": "lpt.prompt_length=0 must be at least 1",
    "optim.weight_decay=nan": "optim.weight_decay=nan must be at least 0",
    "fewshot.k_dev=-1": "fewshot.k_dev=-1 must be at least 0",
    "task.max_length=0": "task.max_length=0 must be at least 1",
    "task.wheel.test_rows=-1": "task.wheel.test_rows=-1 must be at least 0",
    "optim.lr=inf": "optim.lr=inf must be greater than 0",
    "optim.max_grad_norm=0": "optim.max_grad_norm=0.0 must be greater than 0",
    "optim.warmup_ratio=1": "optim.warmup_ratio=1.0 must be 0 or more and less than 1",
    "seed=-1": "seed=-1 must be at least 0",
    "generator.dropout=1": "generator.dropout=1.0 must be 0 or more and less than 1",
    "generator.init=vocabulary": (
        "generator.init=vocabulary goes with method=prompt_tuning, or with generator=inception or none of a method "
        "that has generators, such as lpt; not with generator=npg method=lpt"
    ),
    "fewshot.k=null": "fewshot=total needs fewshot.k=<number of training rows>",
    "trainer.devices=17": (
        "optim.batch_size=16 cannot be shared by trainer.devices=17 x optim.gradient_accumulation=1 micro-batches; "
        "raise it or lower them"
    ),
}


@pytest.mark.parametrize(
    "table", [UNREADABLE, KEYS, TYPES, CHOICES, RANGES], ids=["form", "key", "type", "choice", "range"]
)
def test_each_wrong_override_gets_one_complaint_and_all_come_at_once(table):
    assert sorted(complaints("", *table)) == sorted(table.values())


def test_complaints_of_every_kind_come_together_each_once():
    overrides = [
        "lpt.layer=abc",
        "optim.lr=0",
        "generator=foo",
        "task=rte",
        "task.label_words.entailment=Sure",
        "a=b=c",
    ]
    assert complaints("", *overrides, *overrides) == [
        "a=b=c: this value needs quotes within quotes: 'a=\"b=c\"'",
        "lpt.layer=abc must be a whole number or null",
        f"generator=foo: there is no generator 'foo'; {GENERATORS}",
        "optim.lr=0.0 must be greater than 0",
    ]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("backbone.path=${nope}", "backbone.path: Interpolation key 'nope' not found"),
        ("seed=${lpt.layer}", "seed must be a whole number"),
        ("backbone.path=???", "backbone.path is not set; give backbone.path=<value>"),
    ],
)
def test_a_value_that_cannot_be_made_out_is_told(override, complaint):
    assert complaints("", override) == [complaint]


@pytest.mark.parametrize(
    ("group", "given", "nearest"),
    [
        ("backbone", "roberta-larg", "roberta-large"),
        ("backbone", "random/roberta-larg", "random/roberta-large"),
        ("task", "sst-2", "sst2"),
        ("logger", "wand", "wandb"),
    ],
)
def test_the_nearest_choice_is_suggested_and_all_are_listed(group, given, nearest):
    assert complaints(f"{group}={given}") == [
        f"{group}={given}: there is no {group} '{given}'; choose one of {', '.join(choices(group))}; "
        f"did you mean '{nearest}'?"
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--multirn", "--multirn: there is no such flag; --hydra-help lists them; did you mean '--multirun'?"),
        ("-m --cfg job", "--multirun --cfg: these flags exclude each other; keep one"),
        ("--resolve", "--resolve goes with --cfg"),
        ("--config-dir /no/such", "--config-dir /no/such: there is no such folder"),
        (
            "seed=1 -m lpt.layer=1,2",
            "lpt.layer=1,2: flags such as -m go before the first or after the last option, not between",
        ),
        ("--config-name nope", "Cannot find primary config 'nope'. Check that it's in your config search path."),
    ],
)
def test_a_wrong_flag_gets_one_complaint(line, complaint):
    assert complaints(line) == [complaint]


# Sweeps


def test_points_find_a_config_folder_of_ones_own_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_arguments(["-m", "--config-dir", "mine", "seed=1,2"]).location_flags == [
        "--config-dir",
        str(tmp_path / "mine"),
    ]


@pytest.mark.parametrize("line", ["lpt.layer=4,8", "generator=npg,appg", "'lpt.layer=range(1,4)'"])
def test_several_values_without_the_flag_are_told_about_it(line):
    (text,) = shlex.split(line)
    assert complaints(line) == [
        f"{text}: several values need the flag -m, which runs one after the other; "
        "a list goes in brackets, a text with a comma in quotes within quotes"
    ]


def test_every_bad_point_of_a_sweep_is_named_before_the_first_one_runs():
    assert complaints("-m lpt.layer=4,abc,0 generator=npg,foo seed=1,2") == [
        "lpt.layer=abc must be a whole number or null",
        "lpt.layer=0 must be at least 1 (layers are numbered 1..L)",
        f"generator=foo: there is no generator 'foo'; {GENERATORS}",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("'generator=glob(z*)'", "generator=glob(z*): stands for no value at all"),
        (
            "'optim.lr=interval(0.1,0.2)'",
            "optim.lr=interval(0.1,0.2): hydra/sweeper=basic runs values one by one; list them, or use range(...)",
        ),
        (
            "seed=1,2 trainer.devices=2 hydra/launcher=basic",
            "trainer.devices=2 needs hydra/launcher=local_queue with -m: under another launcher each device's process "
            "would start the whole sweep again",
        ),
        (
            "seed=1,2 trainer.nodes=2 trainer.devices=2",
            "trainer.nodes=2 with -m needs a cluster, hydra/launcher=submitit_slurm: this launcher works on one "
            "machine",
        ),
        ("resume=runs/a", "resume=runs/a cannot be combined with -m; resume one run at a time"),
        ("seed=1,2 hydra.launcher.workers=0", "hydra.launcher.workers=0 must be at least 1"),
        ("seed=1,2 hydra.launcher.retries=-1", "hydra.launcher.retries=-1 must be at least 0"),
    ],
)
def test_a_sweep_that_cannot_run_gets_one_complaint(line, complaint):
    assert complaints(f"-m {line}") == [complaint]


# Processes that somebody else starts


def test_nodes_need_to_be_told_of_each_other_and_of_a_folder():
    assert complaints("trainer.nodes=0") == ["trainer.nodes=0 must be at least 1"]
    assert complaints("trainer.nodes=2 lpt.layer=0") == [
        "lpt.layer=0 must be at least 1 (layers are numbered 1..L)",
        "processes that start apart cannot name the run folder by the time; give hydra.run.dir=<folder on a disk that "
        "all nodes share>",
    ]
    assert complaints("trainer.nodes=2 hydra.run.dir=runs/a") == [
        "trainer.nodes=2: this process cannot find the others without MASTER_ADDR, MASTER_PORT, NODE_RANK; start "
        "all of them by srun or torchrun, or one on each node with MASTER_ADDR, MASTER_PORT, NODE_RANK set"
    ]


def test_one_of_several_tasks_sweeps_nothing_and_may_write_into_the_first_ones_folder(monkeypatch, saved_run):
    for name, value in slurm.tasks(nodes=2, on_each=1, job=71)[1].items():
        monkeypatch.setenv(name, value)
    assert complaints("trainer.nodes=2", f'hydra.run.dir="{saved_run}"') == []
    assert complaints("-m seed=1,2") == [
        "-m starts the processes of each point itself; run it as one process, outside srun and torchrun"
    ]


# Experiment files


def test_an_experiment_of_the_users_own_is_chosen_without_a_plus(conf):
    line = conf("mine", "defaults:\n  - override /generator: appg\nlpt: {layer: 7}\n")
    assert complaints(line) == []
    assert complaints(line.replace("experiment=", "+experiment=")) == [
        "+experiment=mine: write experiment=mine; + is for what is not there yet"
    ]


def test_an_unknown_experiment_is_answered_with_those_there_are(conf):
    line = conf("mine", "seed: 3\n").replace("=mine", "=mein")
    assert complaints(line) == [
        f"experiment=mein: there is no experiment 'mein'; choose one of {', '.join(choices('experiment', 'mine'))}; "
        "did you mean 'mine'?"
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lpt: {layr: 7}\n", "experiment/mine.yaml: there is no option lpt.layr; did you mean 'lpt.layer'?"),
        ("lpt: {layer: abc}\n", "experiment/mine.yaml: lpt.layer must be a whole number or null"),
        ("lpt: {layer: 0}\n", "lpt.layer=0 must be at least 1 (layers are numbered 1..L)"),
        (
            "defaults:\n  - override /generator: foo\n",
            f"experiment=mine: there is no generator 'foo'; {GENERATORS}",
        ),
    ],
)
def test_a_mistake_in_an_experiment_file_is_told_with_its_place(conf, text, complaint):
    assert complaints(conf("mine", text)) == [complaint]


def test_an_experiment_file_that_is_no_yaml_is_told_with_its_line(conf, tmp_path):
    assert complaints(conf("mine", "lpt: {layer: [7}\n")) == [
        f"{tmp_path}/my conf, x/experiment/mine.yaml, line 2: expected ',' or ']', but got '}}'"
    ]


def test_a_sweep_in_an_experiment_file_is_checked_like_any_other(conf):
    sweep = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      lpt.layer: {}\n"
    assert complaints(conf("good", sweep.format("1,2"))) == []
    assert complaints(conf("bad", sweep.format("1,0"))) == ["lpt.layer=0 must be at least 1 (layers are numbered 1..L)"]


# Where a run writes


@pytest.mark.parametrize(("flag", "option"), [("", "hydra.run.dir"), ("-m seed=1,2", "hydra.sweep.dir")])
def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_made(tmp_path, flag, option):
    file = tmp_path / "file"
    file.touch()
    assert complaints(flag, f"{option}={file}/run") == [
        f"{option}={file}/run: cannot write in {file} (Not a directory); choose another folder"
    ]
    assert complaints(flag, f"{option}={tmp_path}/new/run") == []
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_holds_a_run_is_not_written_over(saved_run, tmp_path):
    (complaint,) = complaints("", f'hydra.run.dir="{saved_run}"')
    told, resume = complaint.split(", or resume it by ")
    assert told == f"hydra.run.dir={saved_run} already holds a run; choose another folder"
    assert complaints("", *shlex.split(resume)) == []  # as a shell gives it to the command
    assert complaints("-m seed=1,2", f"hydra.sweep.dir={tmp_path}") == [
        f"hydra.sweep.dir={tmp_path} already holds a run; choose another folder"
    ]


def test_a_run_that_failed_before_its_first_checkpoint_leaves_its_folder_free(saved_run):
    (saved_run / "result.json").write_text(json.dumps(failed("no such column")))
    assert complaints("", f'hydra.run.dir="{saved_run}"') == []
    (saved_run / "checkpoints").mkdir()
    assert "already holds a run" in complaints("", f'hydra.run.dir="{saved_run}"')[0]


def test_a_folder_that_holds_a_sweep_can_be_swept_into_again(saved_run, tmp_path):
    (tmp_path / "sweep.db").touch()
    (tmp_path / "multirun.yaml").touch()
    assert complaints("-m seed=1,2", f"hydra.sweep.dir={tmp_path}") == []


def test_the_other_processes_of_a_run_may_write_into_its_folder(saved_run):
    assert complaints("trainer.devices=2", f'hydra.run.dir="{saved_run}"', "hydra.output_subdir=null") == []


# Resuming


@pytest.fixture
def saved_run(tmp_path) -> Path:
    """The configuration that a run has left."""
    folder = tmp_path / "it's a run"
    (folder / ".hydra").mkdir(parents=True)
    (cfg,) = compose_points([["task=rte", "lpt.layer=7"]])
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder


def test_a_run_is_resumed_with_values_of_this_command_on_top(saved_run, monkeypatch):
    overrides = [f'resume="{saved_run}"', "trainer.max_epochs=8", "+logger={project: mine}", "cache.max_bytes=7"]
    assert complaints("", *overrides) == []
    hydra = OmegaConf.create({"overrides": {"task": overrides}})
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    config = resolve(saved_config(OmegaConf.create({"resume": str(saved_run)})))
    assert (config.task.name, config.lpt.layer, config.resume) == ("rte", 7, str(saved_run))
    assert (config.trainer.max_epochs, config.trainer.devices) == (8, 1)
    assert (config.logger.project, config.logger.name, config.cache.max_bytes) == ("mine", "csv", 7)


def test_resuming_writes_into_the_runs_own_folder_and_keeps_its_configuration(saved_run):
    arguments = complete_arguments(["trainer.max_epochs=8", f'resume="{saved_run}"'])
    assert arguments[:2] == ["trainer.max_epochs=8", f'resume="{saved_run}"']
    assert arguments[2:] == ["hydra.run.dir='" + str(saved_run).replace("'", "\\'") + "'", "hydra.output_subdir=null"]
    assert complaints("", *arguments) == []
    assert complete_arguments(["seed=3", "resume=null"]) == ["seed=3", "resume=null"]


def test_a_resumed_run_keeps_its_groups_and_gets_all_other_complaints_too(saved_run):
    keeps = (
        f"cannot be given with resume={saved_run}: a run keeps what it was started with, "
        "except for trainer.*, logger.*, cache.* and the backbone.path of the same weights"
    )
    changes = ["generator=appg", "task=rte", "lpt.layer=4", "seed=5", "optim.lr=1", "logger=wandb"]
    given = [f'resume="{saved_run}"', *changes, "lpt.layr=3"]
    assert complaints("", *given) == [
        "lpt.layr=3: there is no option lpt.layr; did you mean 'lpt.layer'?",
        *(f"{change} {keeps}" for change in changes),
    ]
    assert complaints("", given[0], "trainer.devices=0") == ["trainer.devices=0 must be at least 1"]


def test_a_resumed_run_may_find_its_backbone_elsewhere_where_a_checkpoint_knows_its_weights(saved_run):
    given = [f'resume="{saved_run}"', "backbone.path=/new/place"]
    (complaint,) = complaints("", *given)
    assert complaint.startswith(f"backbone.path=/new/place: the run in {saved_run} has no checkpoint to compare")
    (saved_run / "checkpoints").mkdir()
    (saved_run / "checkpoints" / "last.ckpt").touch()
    assert complaints("", *given) == []
    name = restore(saved_run, []).backbone.name
    assert [restore(saved_run, given).backbone[key] for key in ("path", "name")] == ["/new/place", name]
    assert [text for text in complete_arguments(given) if "backbone.name" in text] == []


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        assert complaints("", f"resume={folder}") == [
            f"resume={folder}: there is no run in that folder (.hydra/config.yaml is missing)"
        ]


def test_a_damaged_configuration_is_told_with_its_line(saved_run):
    file = saved_run / ".hydra" / "config.yaml"
    file.write_text("lpt: [")
    assert complaints("", f'resume="{saved_run}"') == [
        f"resume={saved_run}: {file}, line 1: expected the node content, but found '<stream end>'"
    ]


def test_a_run_of_another_version_is_told_once_with_the_options_that_are_gone(saved_run):
    (saved_run / ".hydra" / "config.yaml").write_text("optim: {clip: 1.0, lr: 1}\nmethod: {name: lora, from_layer: 3}")
    assert complaints("", f'resume="{saved_run}"') == [
        f"resume={saved_run}: the run was started by another version of lpt, whose options method.from_layer, "
        "optim.clip do not exist here; start it again (CHANGELOG.md lists the new names), or resume it with that "
        "version"
    ]


def test_code_that_a_run_used_is_run_only_if_it_is_named_again(saved_run, tmp_path):
    """A run folder may come from elsewhere."""
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'was here')!r}, 'w')")
    config = OmegaConf.load(saved_run / ".hydra" / "config.yaml")
    config.plugins = [str(evil)]
    OmegaConf.save(config, saved_run / ".hydra" / "config.yaml")
    with pytest.raises(ConfigError) as error:
        restore(saved_run, [])
    (complaint,) = error.value.complaints
    assert complaint.endswith(f"which are run only if you name them: plugins=[{evil}]")
    assert restore(saved_run, [f"plugins=[{evil}]"]).plugins == [str(evil)]
    assert not (tmp_path / "was here").exists()
    config.plugins = []
    OmegaConf.save(config, saved_run / ".hydra" / "config.yaml")
    with pytest.raises(ConfigError, match="uses no Python files of its own"):
        restore(saved_run, [f"plugins=[{evil}]"])


def test_a_job_that_slurm_starts_again_resumes_its_run(saved_run, monkeypatch, tmp_path):
    given = ["lpt.layer=2", assignment("hydra.run.dir", saved_run), "plugins=[a.py]"]
    assert resumed_if_requeued(given) == given
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resumed_if_requeued(given) == [assignment("resume", saved_run), "plugins=[a.py]"]
    assert complaints("", *resumed_if_requeued(given[:2])) == []
    elsewhere = ["lpt.layer=2", f"hydra.run.dir={tmp_path}/new"]
    assert resumed_if_requeued(elsewhere) == elsewhere
