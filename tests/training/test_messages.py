import pytest
import torch

from lpt import hardware
from lpt.config.schema import Config, MethodConfig, OptimConfig, TrainerConfig
from lpt.data.audit import Audit
from lpt.data.batches import EncodedSplit
from lpt.data.rows import LabeledRows
from lpt.data.splits import Splits
from lpt.data.tasks import Task
from lpt.data.templates import Encoded
from lpt.training import messages
from lpt.training.placement import place
from lpt.training.plan import plan_training


@pytest.fixture
def machine(monkeypatch):
    """Pretends to be a machine with this processor, or with GPUs."""

    def pretend(flags: str = "", gpus: int = 0, bf16: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(hardware, "_cpu_flags", lambda: set(flags.split()))

    return pretend


@pytest.mark.parametrize(
    ("computer", "options", "line"),
    [
        ({"flags": "avx512_bf16"}, {}, "bf16 on 2 CPU cores (AVX512-BF16)"),
        ({"flags": "avx512_bf16 amx_bf16"}, {}, "bf16 on 2 CPU cores (AMX)"),
        (
            {},
            {},
            "float32 on 2 CPU cores: this processor has no fast bf16 (AMX or AVX512-BF16); choose with "
            "trainer.precision",
        ),
        ({"flags": "amx_bf16"}, {"precision": "32"}, "float32 on 2 CPU cores"),
        (
            {},
            {"precision": "bf16"},
            "bf16 on 2 CPU cores, which has no fast bf16; trainer.precision=32 may be faster",
        ),
        ({"gpus": 1, "bf16": True}, {}, "bf16 on Tesla T4"),
        ({"gpus": 4, "bf16": True}, {"devices": 4}, "bf16 on 4 x Tesla T4"),
        ({"gpus": 1}, {}, "float32 on Tesla T4: this GPU has no bf16; choose with trainer.precision"),
        ({"gpus": 1}, {"precision": "16"}, "fp16 on Tesla T4"),
    ],
)
def test_the_first_line_says_number_format_device_and_why(machine, computer, options, line):
    machine(**computer)
    config = Config(method=MethodConfig(name="lpt"), trainer=TrainerConfig(**options))
    assert messages.describe_placement(config, place(config)) == line


def test_weights_that_are_trained_are_float32_and_the_line_says_so(machine):
    machine("amx_bf16")
    config = Config(method=MethodConfig(name="full"))
    assert messages.describe_placement(config, place(config)) == (
        "float32 on 2 CPU cores; the backbone's weights are trained, so they are kept in float32"
    )


def test_lines_fit_eighty_columns_and_go_on_indented(machine, capsys):
    machine()
    config = Config(method=MethodConfig(name="lpt"))
    messages.say_placement(config, place(config))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "float32 on 2 CPU cores: this processor has no fast bf16 (AMX or AVX512-BF16);"
    assert second == "  choose with trainer.precision"


def rows(*texts):
    return LabeledRows([(text,) for text in texts], [i % 2 for i in range(len(texts))], list(range(len(texts))))


def test_each_split_has_a_line_with_its_classes_and_the_test_set_its_source():
    drawn = Splits(rows(*"abcdefghijkl"), rows("m", "n"), rows("o", "p", "q"), "dev", {}, Audit(), [])
    heading, *lines = messages.describe_rows(Config(task=Task(name="films", labels=["bad", "good"])), drawn)
    assert heading == "films, drawn with fewshot=full fewshot.seed=13:"
    fingerprints = [found[:8] for found in drawn.describe(["bad", "good"])["fingerprint"].values()]
    assert lines == [
        f"  train       12 (6 bad, 6 good; fingerprint {fingerprints[0]})",
        f"  validation  2 (1 bad, 1 good; fingerprint {fingerprints[1]})",
        f"  test        3 (2 bad, 1 good; fingerprint {fingerprints[2]}; the dev split)",
    ]


def test_what_was_left_open_is_said_as_the_options_that_would_ask_for_it():
    config, asked = Config(), Config(optim=OptimConfig(gradient_accumulation=3))
    plan = plan_training(config, num_rows=44, gradient_accumulation=2)
    assert messages.describe_choices(config, "lean", plan) == [
        "backbone.attention=lean",
        "optim.gradient_accumulation=2",
    ]
    asked.backbone.attention = "sdpa"
    assert messages.describe_choices(asked, "sdpa", plan) == []
    untrained = plan_training(config, num_rows=44, gradient_accumulation=2, trainable=False)
    assert messages.describe_choices(config, "lean", untrained) == ["backbone.attention=lean"]


def test_truncated_texts_and_what_is_odd_about_the_rows_are_said(capsys):
    encoded = [Encoded([1], 0, False), Encoded([1], 0, True)]
    splits = {name: EncodedSplit(encoded, rows("a", name)) for name in ("train", "test")}
    odd = Audit(shared={"test and train": 1})
    given = Splits(splits["train"].labeled, rows("v"), splits["test"].labeled, "test", {}, odd, ["quotes are kept"])
    messages.warn_about_rows(given, splits, None, max_length=8)
    assert capsys.readouterr().out.splitlines() == [
        "warning: quotes are kept",
        "warning: 1 row of test has the text of a row of train",
        "50.0% of the train texts are truncated to 8 tokens (task.max_length)",
        "50.0% of the test texts are truncated to 8 tokens (task.max_length)",
    ]
