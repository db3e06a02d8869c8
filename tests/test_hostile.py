"""Hostile and odd input: any bytes, any text, any labels end in what was meant or in one clear error.

`make test` tries a few dozen cases of each, `make torture` ten thousand (`LPT_FUZZ=<number of cases>`).
"""

import contextlib
import csv
import io
import json
import os
import shutil
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import tiny_adapter, tiny_tokenizer

from lpt.adapter import CONFIG_NAME, load_adapter_config
from lpt.cli import main
from lpt.data.labels import label_rows
from lpt.data.readers import Columns
from lpt.data.readers import read_file as read
from lpt.data.reading import Reading, TextFormat, default_values
from lpt.data.templates import Template
from lpt.data.text import read_lines, text_problem
from lpt.errors import LptError
from lpt.fewshot import sample_per_class, sample_total
from lpt.training.checkpoints import read_checkpoint
from lpt.training.result import read_result

CASES = int(os.environ.get("LPT_FUZZ", "40"))
settings.register_profile(
    "hostile",
    max_examples=CASES,
    deadline=2000,  # milliseconds for a case
    derandomize="LPT_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("hostile")

ANY = st.text(max_size=200)  # emoji, right-to-left, control characters; no lone surrogates, which are no text
ODD = st.sampled_from(
    [
        "",
        " ",
        "<s> </s> <mask>",
        "😀👩‍🚀",
        "مرحبا بالعالم",
        "\x00\x1b[2J\x7f",
        "\u202eabc",
        "a\u2028b\u0085c",
        "{a} {mask}",
        "%s $HOME",
    ]
)
TEXT = st.one_of(ANY, ODD)
CELL = TEXT.filter(lambda text: "\r" not in text)  # alone, it ends a line of a CSV file as on an old Mac
NAMES = ["text", "label", "other"]


def as_csv(rows, delimiter=","):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([NAMES, *rows])
    return file.getvalue().encode()


def parquet(rows):
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: [row[i] for row in rows] for i, name in enumerate(NAMES)}), buffer)
    return buffer.getvalue()


def read_file(folder, name: str, content: bytes, *options) -> Columns:
    (folder / name).write_bytes(content)
    return read(folder / name, *options)


def outcome(call):
    """What a call returns, or else its complaint; any error but ours is a failure."""
    try:
        return call(), None
    except LptError as error:
        return None, str(error)


# Readers


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8))
@example([("", "", "")])
def test_any_texts_come_out_of_a_file_as_they_went_in(tmp_path, rows):
    files = {
        "a.csv": as_csv(rows),
        "a.jsonl": "\n".join(json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows).encode(),
        "b.jsonl": "\n".join(
            json.dumps(dict(zip(NAMES, row, strict=True)), ensure_ascii=False) for row in rows
        ).encode(),
        "a.parquet": parquet(rows),
    }
    for name, content in files.items():
        found = read_file(tmp_path, name, content)
        assert [found.texts("--a", column) for column in NAMES] == [list(column) for column in zip(*rows, strict=True)]
    quoted = read_file(tmp_path, "b.csv", as_csv(rows, ";"), TextFormat(delimiter=";"))
    assert quoted.texts("--a", "text") == [row[0] for row in rows]


BYTES = st.one_of(
    st.binary(max_size=300),
    TEXT.map(str.encode),
    st.lists(
        st.sampled_from(
            [
                b"text",
                b"label",
                b",",
                b"\t",
                b'"',
                b"\n",
                b"\r\n",
                b"a",
                b"{",
                b"}",
                b":",
                b"[",
                b"\xff",
                b"null",
                b"1e999",
            ]
        ),
        max_size=40,
    ).map(b"".join),
)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.parquet", "x.csv.bz2"])
@given(content=BYTES)
def test_any_bytes_are_read_or_refused_with_the_files_name(tmp_path, name, content):
    def read_and_label():
        reading = Reading(values=default_values(["bad", "good"]))
        label_rows(read_file(tmp_path, name, content), reading, ["bad", "good"], None, "--")

    _, complaint = outcome(read_and_label)
    assert complaint is None or (name in complaint and "\n" not in complaint)


@given(flip=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=5))
@example([(268, 128)])  # a text that is not UTF-8 any more
def test_a_damaged_parquet_file_is_read_or_refused(tmp_path, flip):
    content = bytearray(parquet([("a film", "good", "x"), ("dull", "bad", "y")]))
    for place, bits in flip:
        content[place % len(content)] ^= bits
    _, complaint = outcome(lambda: read_file(tmp_path, "x.parquet", bytes(content)).texts("--a", "text"))
    assert complaint is None or "x.parquet" in complaint


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_stream_is_lines_of_text_or_refused_with_a_line_number(lines):
    content = b"\n".join(lines)
    found, complaint = outcome(lambda: list(read_lines(io.BytesIO(content), "stdin")))
    if complaint is not None:
        assert complaint.startswith("stdin, line ")
        with pytest.raises(UnicodeDecodeError):
            content.decode()
    else:
        assert all(text_problem(line) is None for line in found)
        plain = content.removeprefix(b"\xef\xbb\xbf").decode()
        expected = plain.removesuffix("\n").split("\n") if plain else []
        assert found == [line.removesuffix("\r") for line in expected]


# Templates


TOKENIZER = tiny_tokenizer()


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(12, 40), st.booleans())
@example(["<mask> " * 30], 12, False)
@example(["x" * 100_000], 40, True)
def test_any_text_fits_and_is_read_where_the_template_says(texts, max_length, causal):
    template = Template(TOKENIZER, "{a} It was" if causal else "{a} It was {mask} .", causal, max_length)
    special = {TOKENIZER.mask_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id}
    for row in template.encode([(text,) for text in texts]):
        assert 0 < len(row.input_ids) <= max_length
        found = [i for i, token in enumerate(row.input_ids) if token in special]
        assert found == ([] if causal else [row.readout_position])
        assert row.input_ids[row.readout_position] == (
            TOKENIZER.convert_tokens_to_ids("was") if causal else TOKENIZER.mask_token_id
        )


# Samplers


@given(
    st.lists(st.sampled_from(["a", "b", "c", "é 😀", ""]), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_any_draw_is_disjoint_of_the_size_asked_for_and_the_same_again(labels, k, k_dev, seed):
    for sample in (sample_total, sample_per_class):
        try:
            train, dev = sample(labels, k, k_dev, seed)
        except LptError:
            continue
        assert not {*train} & {*dev}
        assert len({*train}) == len(train)
        assert {*train, *dev} <= set(range(len(labels)))
        again = sample(labels, k, k_dev, seed)
        assert [list(part) for part in again] == [list(train), list(dev)]


# What comes from elsewhere: adapters, checkpoints, results


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """The text of a good adapter_config.json."""
    import torch

    from lpt import LatePromptClassifier
    from lpt.backbones.pretrained import find_pretrained

    folder = tmp_path_factory.mktemp("adapter")
    config = tiny_adapter(folder, "llama")
    LatePromptClassifier(config, find_pretrained(config.backbone), torch.float32).save_pretrained(folder / "adapter")
    return (folder / "adapter" / CONFIG_NAME).read_text()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(string.ascii_letters), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.data())
def test_any_adapter_config_is_good_or_refused_in_one_line(tmp_path, adapter, data):
    content = json.loads(adapter)
    for key in data.draw(
        st.lists(st.sampled_from([*content, "reading.values", "reading.format"]), min_size=1, max_size=3)
    ):
        place = content
        *path, last = key.split(".")
        for part in path:
            place = place[part] if isinstance(place, dict) and part in place else {}
        if isinstance(place, dict):
            place[last] = data.draw(JSON)
    (tmp_path / CONFIG_NAME).write_text(json.dumps(content))
    _, complaint = outcome(lambda: load_adapter_config(tmp_path))
    assert complaint is None or CONFIG_NAME in complaint


@pytest.mark.parametrize("kind", ["adapter", "checkpoint", "result"])
@given(content=BYTES)
def test_any_bytes_in_place_of_our_files_are_refused_in_one_line(tmp_path, kind, content):
    names = {"adapter": CONFIG_NAME, "checkpoint": "last.ckpt", "result": "result.json"}
    readers = {
        "adapter": load_adapter_config,
        "checkpoint": lambda p: read_checkpoint(p / "last.ckpt"),
        "result": read_result,
    }
    (tmp_path / names[kind]).write_bytes(content)
    with pytest.raises(LptError) as error:
        readers[kind](tmp_path)
    assert names[kind] in str(error.value)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """What reads a split through a cache folder, the folder with its one entry, and the right states."""
    from tiny import tiny_model

    from lpt.backbones.split import SplitBackbone
    from lpt.cache.trunk import TrunkCache
    from lpt.data.batches import EncodedSplit
    from lpt.data.rows import LabeledRows
    from lpt.data.templates import Encoded

    rows = [Encoded([3, 7, 9, 4, 8], 4, False), Encoded([5], 0, False)]
    split = EncodedSplit(rows, LabeledRows([("",)] * 2, [0] * 2, [0, 1]))
    backbone, cache_home = SplitBackbone(tiny_model("llama"), 3), tmp_path_factory.mktemp("cache")

    def read_states():
        cache = TrunkCache("disk", 10**6, cache_home / "trunk", say=lambda line: None)
        cache.prepare(backbone, {"train": split})
        return cache.states(backbone, split, "train", pad_id=1), cache.facts

    return read_states, cache_home, read_states()[0].states.clone()


FILES = st.sampled_from(["numbers.bin", "entry.json"])
DAMAGES = st.one_of(
    st.tuples(st.just("flip"), FILES, st.tuples(st.integers(0, 10**4), st.integers(1, 255))),
    st.tuples(st.just("cut"), FILES, st.integers(0, 10**4)),
    st.tuples(st.just("append"), FILES, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("replace"), FILES, BYTES),
    st.tuples(st.just("replace"), FILES, JSON.map(lambda value: json.dumps(value).encode())),
    st.tuples(st.just("field"), st.sampled_from(["key", "checksum", "backbone", "rows"]), JSON),
    st.tuples(st.sampled_from(["remove", "folder", "broken link"]), FILES, st.none()),
    st.tuples(st.sampled_from(["remove", "file"]), st.just(""), st.none()),
)


def damage_entry(place, how, name, value):
    path = place / name
    if how == "field":
        path = place / "entry.json"
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # of an earlier damage
            path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
        return
    if place.is_file():
        place.unlink()
    place.mkdir(exist_ok=True)
    old = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match how:
        case "flip" if old:
            at = value[0] % len(old)
            path.write_bytes(old[:at] + bytes([old[at] ^ value[1]]) + old[at + 1 :])
        case "cut":
            path.write_bytes(old[: value % (len(old) + 1)])
        case "append" | "replace":
            path.write_bytes((old if how == "append" else b"") + value)
        case "folder":
            path.mkdir()
        case "broken link":
            path.symlink_to("nowhere")
        case "file":
            path.write_bytes(b"x")


@settings(deadline=None)  # the first one loads what draws tables
@given(st.lists(DAMAGES, min_size=1, max_size=3))
@example([("replace", "entry.json", b"[" * 10_000)])  # deeper than Python recurses
@example([("replace", "entry.json", b"[]")])
@example([("broken link", "numbers.bin", None)])
@example([("file", "", None)])
@example([("field", "backbone", "[/odd]")])  # markup to what draws the table
def test_a_cache_entry_gives_the_right_states_or_is_computed_again(cached, monkeypatch, capsys, damages):
    read_states, cache_home, good = cached
    monkeypatch.setenv("LPT_CACHE", str(cache_home))
    (place,) = (path for path in (cache_home / "trunk").iterdir() if path.suffix != ".lock")
    for how, name, value in damages:
        damage_entry(place, how, name, value)
    main(["cache", "list"])
    capsys.readouterr()
    states, facts = read_states()
    assert states.states.equal(good)
    assert facts.built + facts.reused == ["train"]
    assert read_states()[1].reused == ["train"]


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    """The classic: a pickle that calls whatever it names."""
    import torch

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was here",)

    torch.save({"global_step": 1, "state_dict": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(LptError, match="is damaged"):
        read_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "was here").exists()
