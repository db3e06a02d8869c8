import json
from collections import Counter
from functools import cache

import numpy as np
import places
import pytest
import torch

from lpt.errors import LptError
from lpt.fewshot import fingerprint, sample_per_class, sample_total

GOLDEN = json.loads((places.GOLDEN / "kshot_total.json").read_text())
GLUE = places.SHARED / "data" / "glue"
TREC_SIZES = {3: 1120, 1: 1122, 2: 75, 4: 750, 0: 1042, 5: 797}
BOTH = pytest.mark.parametrize("sample", [sample_total, sample_per_class])


def rows_of(sizes: dict) -> list:
    """A label column with the given class sizes, the classes interleaved."""
    labels = [label for label, size in sizes.items() for _ in range(size)]
    return [labels[i] for i in np.random.RandomState(99).permutation(len(labels))]


@cache
def glue_labels(task: str) -> list[str]:
    """The label column of a task's train.tsv, or a skipped test where the data are not there."""
    folders = [f for f in GLUE.glob("*") if plain(f.name) == plain(task)]
    if not folders:
        pytest.skip(f"needs {task}/train.tsv in the folder ../shared/data/glue")
    lines = (folders[0] / "train.tsv").read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    header, column = {
        "sst2": (1, -1),
        "rte": (1, -1),
        "mrpc": (1, 0),
        "cola": (0, 1),
        "mr": (0, 0),
        "subj": (0, 0),
        "trec": (0, 0),
    }[plain(task)]
    return [line.split("\t")[column] for line in lines[header:]]


def plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def grouped_by_global_generator(labels: list, seed: int) -> dict:
    """What the published scripts do: seed NumPy globally, shuffle a list of lines, collect it by label."""
    state = np.random.get_state()
    np.random.seed(seed)
    lines = list(enumerate(labels))
    np.random.shuffle(lines)
    np.random.set_state(state)
    groups: dict = {}
    for row, label in lines:
        groups.setdefault(label, []).append(row)
    return groups


@pytest.mark.parametrize("entry", GOLDEN, ids=[f"{e['task']}-{e['k']}-seed{e['seed']}" for e in GOLDEN])
def test_total_draws_the_rows_the_reference_wrote(entry):
    train, dev = sample_total(glue_labels(entry["task"]), entry["k"], entry["k_for_dev"], entry["seed"])
    assert train == entry["train_rows"]
    assert dev == entry["dev_rows"]


def test_total_splits_dev_in_proportion_to_the_rows_that_training_left():
    labels = rows_of(TREC_SIZES)
    train, dev = (Counter(labels[row] for row in rows) for rows in sample_total(labels, 100, 1000, 13))
    assert train == {0: 21, 1: 23, 2: 2, 3: 23, 4: 15, 5: 16}
    # 1000 * 797 / 4906 = 162.45, but 1000 * (797 - 16) / (4906 - 100) = 162.51
    assert dev == {0: 212, 1: 229, 2: 15, 3: 228, 4: 153, 5: 163}


def test_total_gives_the_last_class_to_appear_what_rounding_leaves():
    labels = ["a"] * 5 + ["b"] * 5 + ["c"] * 5  # a third of 7 rounds to 2
    for seed in range(10):
        last = list(grouped_by_global_generator(labels, seed))[-1]
        train, _ = sample_total(labels, 7, 0, seed)
        assert Counter(labels[row] for row in train) == {"a": 2, "b": 2, "c": 2} | {last: 3}


def test_total_takes_the_shuffled_rows_of_each_class_from_the_front():
    labels = rows_of({"x": 30, "y": 20, "z": 10})
    groups = grouped_by_global_generator(labels, seed=42)
    train, dev = sample_total(labels, 12, 18, seed=42)
    sizes = {"x": (6, 9), "y": (4, 6), "z": (2, 3)}
    assert train == [row for label, rows in groups.items() for row in rows[: sizes[label][0]]]
    assert dev == [row for label, rows in groups.items() for row in rows[sizes[label][0] : sum(sizes[label])]]


@pytest.mark.parametrize("seed", [13, 21, 42, 87, 100])
@pytest.mark.parametrize(("k", "k_dev"), [(16, 16), (4, 40), (1, 0)])
def test_per_class_draws_the_rows_of_the_lm_bff_script(seed, k, k_dev):
    labels = rows_of({"neutral": 300, "entailment": 56, "contradiction": 200})
    groups = grouped_by_global_generator(labels, seed)
    train, dev = sample_per_class(labels, k, k_dev, seed)
    assert train == [row for rows in groups.values() for row in rows[:k]]
    assert dev == [row for rows in groups.values() for row in rows[k : k + k_dev]]


def test_per_class_gives_every_class_the_same_number_of_rows():
    labels = rows_of(TREC_SIZES)
    train, dev = sample_per_class(labels, 16, 32, seed=21)
    assert Counter(labels[row] for row in train) == dict.fromkeys(range(6), 16)
    assert Counter(labels[row] for row in dev) == dict.fromkeys(range(6), 32)


@BOTH
def test_no_row_is_drawn_twice(sample):
    labels = ["a", "b"] * 20
    train, dev = sample(labels, 20, 20, 7) if sample is sample_total else sample(labels, 10, 10, 7)
    assert sorted(train + dev) == list(range(40))


@BOTH
def test_a_seed_gives_one_draw_whatever_was_drawn_before(sample):
    labels = rows_of({0: 40, 1: 60})
    first = sample(labels, 8, 8, 13)
    other = sample(labels, 8, 8, 21)
    np.random.seed(5)
    np.random.random(3)
    assert sample(labels, 8, 8, 13) == first
    assert other != first


@BOTH
def test_numpys_global_generator_is_left_alone(sample):
    np.random.seed(5)
    expected = np.random.random(4)
    np.random.seed(5)
    sample(rows_of({0: 40, 1: 60}), 8, 8, 13)
    np.testing.assert_array_equal(np.random.random(4), expected)


@BOTH
@pytest.mark.parametrize("column", [np.array, torch.tensor, lambda labels: [f"class {x}" for x in labels]])
def test_the_draw_depends_on_which_rows_share_a_class_not_on_how_it_is_written(sample, column):
    labels = rows_of({0: 40, 1: 60, 2: 30})
    assert sample(column(labels), 8, 8, 13) == sample(labels, 8, 8, 13)


@BOTH
def test_rows_are_plain_numbers_that_json_can_write(sample):
    train, dev = sample([0, 1] * 10, 4, 4, 13)
    assert json.loads(json.dumps([train, dev])) == [train, dev]


@BOTH
def test_without_dev_rows_the_training_rows_stay_the_same(sample):
    labels = rows_of({0: 40, 1: 60})
    train, dev = sample(labels, 8, 0, 13)
    assert dev == []
    assert train == sample(labels, 8, 8, 13)[0]


@BOTH
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_32_bit_seed_is_a_seed(sample, seed):
    labels = ["a", "b"] * 20
    assert set(grouped_by_global_generator(labels, seed)["a"][:4]) <= set(sample(labels, 8, 0, seed)[0])


@BOTH
@pytest.mark.parametrize(
    ("k", "k_dev", "seed", "message"),
    [
        (0, 5, 13, r"fewshot\.k=0: .* fewshot\.k >= 1"),
        (5, -1, 13, r"fewshot\.k_dev=-1: .* fewshot\.k_dev >= 0"),
        (5, 5, -1, r"fewshot\.seed=-1: .* from 0 to 4294967295"),
        (5, 5, 2**32, r"fewshot\.seed=4294967296: .* from 0 to 4294967295"),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_range(sample, k, k_dev, seed, message):
    with pytest.raises(LptError, match=message):
        sample(["a", "b"] * 20, k, k_dev, seed)


@BOTH
def test_data_without_rows_are_refused(sample):
    with pytest.raises(LptError, match=r"fewshot\.k=1 .* the training data has 0"):
        sample([], 1, 0, 13)


def test_total_refuses_more_rows_than_there_are():
    with pytest.raises(
        LptError, match=r"fewshot\.k=30 and fewshot\.k_dev=11 ask for 41 rows, .* the training data has 40"
    ):
        sample_total(["a", "b"] * 20, 30, 11, 13)
    train, dev = sample_total(["a", "b"] * 20, 30, 10, 13)
    assert (len(train), len(dev)) == (30, 10)


def test_total_refuses_to_leave_a_class_without_a_training_row():
    with pytest.raises(LptError, match=r"fewshot\.k=10, .* for class 2 \(75 rows\); raise fewshot\.k"):
        sample_total(rows_of(TREC_SIZES), 10, 100, 13)


def test_total_refuses_dev_shares_that_rounding_makes_impossible():
    with pytest.raises(LptError, match=r"fewshot\.k_dev=4 .* rounding leaves -1 rows to class"):
        sample_total("abcdef" * 10, 12, 4, 13)  # five classes round 4 / 6 up to 1
    with pytest.raises(LptError, match=r"fewshot\.k_dev=8 .* rounding leaves 8 rows to class '.', which has 7"):
        sample_total("abcdefghijklmnopq" * 8, 17, 8, 13)  # sixteen classes round 8 / 17 down to 0


def test_per_class_refuses_a_class_that_is_too_small_and_names_it():
    labels = rows_of({"common": 40, "rare": 5, "rarest": 1})
    with pytest.raises(LptError, match=r"ask for 6 rows of each class") as error:
        sample_per_class(labels, 4, 2, 13)
    assert "class 'rare' (5 rows)" in str(error.value)
    assert "class 'rarest' (1 row)" in str(error.value)
    assert "'common'" not in str(error.value)


def test_an_error_over_many_classes_stays_readable():
    with pytest.raises(LptError, match=r"(class \d+ \(2 rows\), ){4}class \d+ \(2 rows\) and 45 more;"):
        sample_per_class(list(range(50)) * 2, 2, 1, 13)


def test_a_fingerprint_never_changes_between_versions():
    assert fingerprint(["a film", "1", "Ünïcode"]) == "cb3213ed0e45b65a"
    assert fingerprint([]) == "e3b0c44298fc1c14"  # sha256 of nothing


@pytest.mark.parametrize(
    "other", [["a", "bc"], ["abc"], ["c", "ab"], ["ab", "c", ""], ["ab", "", "c"], ["ab\0c"], ["ab", "C"]]
)
def test_a_fingerprint_tells_apart_what_only_looks_alike_joined(other):
    assert fingerprint(other) != fingerprint(["ab", "c"])


def test_a_fingerprint_reads_any_iterable_and_any_text():
    assert fingerprint(iter(["ab", "c"])) == fingerprint(("ab", "c"))
    assert fingerprint(["\udc80"]) != fingerprint(["\udc81"])  # what is left of undecodable bytes
