import numpy as np
import pytest

from lpt.data.rows import LabeledRows
from lpt.data.splits import PROTOCOLS, sample_splits
from lpt.errors import LptError
from lpt.fewshot import fingerprint, sample_per_class, sample_total

LABELS = ["bad", "fair", "good"]


def table(sizes, name="train", first=0) -> LabeledRows:
    """Rows of each class in turn, with a text of their own; counted from `first` in their source."""
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    order = np.random.RandomState(5).permutation(len(labels))
    labels = [labels[i] for i in order]
    texts = [(f"{name} {i}",) for i in range(len(labels))]
    return LabeledRows(texts, labels, list(range(first, first + len(labels))))


TRAIN, DEV, TEST = table([60, 90, 150]), table([5, 5, 5], "dev"), table([7, 7, 7], "test")
ALL = {"train": TRAIN, "dev": DEV, "test": TEST}


def without(*splits) -> dict[str, LabeledRows]:
    return {name: rows for name, rows in ALL.items() if name not in splits}


def sizes(rows: LabeledRows) -> list[int]:
    return np.bincount(rows.labels, minlength=len(LABELS)).tolist()


def sampled(tables=ALL, protocol="full", k=None, k_dev=60, seed=13):
    return sample_splits(tables, LABELS, protocol, k, k_dev, seed)


# full


def test_full_takes_the_splits_as_they_are():
    rows = sampled()
    assert (rows.train, rows.validation, rows.test, rows.test_split) == (TRAIN, DEV, TEST, "test")


@pytest.mark.parametrize("missing", ["test", "dev"])
def test_full_without_a_free_dev_split_takes_validation_rows_from_train_in_proportion(missing):
    rows = sampled(without(missing), k_dev=30)
    assert rows.test_split == ("dev" if missing == "test" else "test")
    assert rows.test is ALL[rows.test_split]
    assert sizes(rows.validation) == [6, 9, 15]
    assert sizes(rows.train) == [54, 81, 135]
    assert sorted(rows.train.index + rows.validation.index) == TRAIN.index
    assert rows.train.index == sorted(rows.train.index)


def test_full_takes_at_most_a_fifth_of_train_for_validation():
    rows = sampled(without("dev"), k_dev=1000)
    assert (len(rows.train), len(rows.validation)) == (240, 60)


def test_full_draws_other_validation_rows_with_another_seed():
    first, again, other = (sampled(without("dev"), seed=seed) for seed in (13, 13, 21))
    assert first == again
    assert first.validation.index != other.validation.index


def test_full_refuses_to_split_a_handful_of_rows():
    few = without("dev") | {"train": table([1, 1, 2])}
    with pytest.raises(LptError) as error:
        sampled(few)
    assert str(error.value) == "4 training rows are too few to take validation rows from; name a dev split"


# total and per_class


@pytest.mark.parametrize(("protocol", "sample"), [("total", sample_total), ("per_class", sample_per_class)])
def test_a_few_shot_draw_has_the_rows_of_its_protocol(protocol, sample):
    # Validation rows come from train although the dev split is free: that is the protocol.
    rows = sampled(protocol=protocol, k=12, k_dev=15, seed=42)
    train, dev = sample([LABELS[label] for label in TRAIN.labels], 12, 15, 42)
    assert (rows.train.index, rows.validation.index) == (train, dev)
    assert (rows.train.sentences, rows.train.labels) == (
        [TRAIN.sentences[i] for i in train],
        [TRAIN.labels[i] for i in train],
    )
    assert (rows.test, rows.test_split) == (TEST, "test")


def test_total_draws_in_proportion_and_per_class_alike():
    assert [sizes(rows) for rows in (sampled(protocol="total", k=30, k_dev=60).by_name().values())] == [
        [6, 9, 15],
        [12, 18, 30],
        [7, 7, 7],
    ]
    assert [sizes(rows) for rows in (sampled(protocol="per_class", k=4, k_dev=8).by_name().values())] == [
        [4, 4, 4],
        [8, 8, 8],
        [7, 7, 7],
    ]


@pytest.mark.parametrize("protocol", ["total", "per_class"])
def test_without_a_labelled_test_split_dev_is_the_test_set(protocol):
    rows = sampled(without("test"), protocol=protocol, k=12, k_dev=15)
    assert (rows.test, rows.test_split) == (DEV, "dev")
    assert not set(rows.validation.sentences) & set(DEV.sentences)
    with_test = sampled(protocol=protocol, k=12, k_dev=15)
    assert (rows.train, rows.validation) == (with_test.train, with_test.validation)


def test_the_place_in_the_source_is_kept():
    shifted = {"train": table([60, 90, 150], first=1000), "test": TEST}
    rows = sampled(shifted, "total", k=12, k_dev=15)
    assert rows.train.index == [1000 + i for i in sampled(protocol="total", k=12, k_dev=15).train.index]


# Numbers


NUMBERS = LabeledRows([(f"train {i}",) for i in range(300)], [i % 26 / 5 for i in range(300)], list(range(300)))


def test_a_total_draw_of_numbers_takes_any_rows():
    rows = sample_splits({"train": NUMBERS, "dev": DEV}, None, "total", k=100, k_dev=60, seed=13)
    train, dev = sample_total([""] * 300, 100, 60, 13)
    assert (rows.train.index, rows.validation.index) == (train, dev)
    assert rows.train.labels == [NUMBERS.labels[i] for i in train]


def test_full_takes_validation_rows_of_numbers_from_train():
    rows = sample_splits({"train": NUMBERS, "dev": NUMBERS}, None, "full", k=None, k_dev=1000, seed=13)
    assert (len(rows.train), len(rows.validation), rows.test) == (240, 60, NUMBERS)
    assert sorted(rows.train.index + rows.validation.index) == NUMBERS.index


def test_numbers_are_described_without_classes_and_known_by_their_values():
    def facts(labels):
        tables = {"train": LabeledRows(NUMBERS.sentences, labels, NUMBERS.index), "dev": DEV, "test": DEV}
        return sample_splits(tables, None, "full", k=None, k_dev=1, seed=13).describe(None)

    assert facts(NUMBERS.labels)["sizes_per_class"] == {"train": {}, "validation": {}, "test": {}}
    assert facts(NUMBERS.labels) == facts(list(NUMBERS.labels))
    assert facts([*NUMBERS.labels[:-1], 4.9])["fingerprint"] != facts(NUMBERS.labels)["fingerprint"]


def test_numbers_have_no_classes_to_draw_from():
    with pytest.raises(LptError) as error:
        sample_splits({"train": NUMBERS, "dev": NUMBERS}, None, "per_class", k=16, k_dev=16, seed=13)
    assert str(error.value) == (
        "fewshot=per_class samples rows of each class, and a regression has no classes; use fewshot=total or full"
    )


# Further test sets


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("missing", ["test", "dev"])
def test_further_test_sets_stay_as_they_are_beside_the_test_set(protocol, missing):
    other, another = table([3, 3, 3], "other"), table([2, 2, 2], "another")
    rows = sampled(without(missing) | {"test_b": other, "test_a": another}, protocol, k=12, k_dev=15)
    alone = sampled(without(missing), protocol, k=12, k_dev=15)
    assert (rows.train, rows.validation, rows.test) == (alone.train, alone.validation, alone.test)
    assert rows.tests() == {"test": rows.test, "test_b": other, "test_a": another}
    assert list(rows.by_name()) == ["train", "validation", "test", "test_b", "test_a"]
    assert rows.describe(LABELS)["sizes_per_class"]["test_a"] == {"bad": 2, "fair": 2, "good": 2}


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"protocol": "total", "k": 300, "k_dev": 1},
            "fewshot.k=300 and fewshot.k_dev=1 ask for 301 rows, but the training data has 300; lower one of them",
        ),
        (
            {"protocol": "per_class", "k": 60, "k_dev": 31},
            "fewshot.k=60 and fewshot.k_dev=31 ask for 91 rows of each class, but the training data has fewer of "
            "class 'bad' (60 rows), class 'fair' (90 rows); lower one of them",
        ),
        ({"protocol": "total"}, "fewshot=total needs fewshot.k=<number of training rows>"),
        ({"protocol": "per_class"}, "fewshot=per_class needs fewshot.k=<number of training rows>"),
        (
            {"protocol": "per-class", "k": 10},
            "fewshot='per-class' is not known; choose one of full, total, per_class; did you mean 'per_class'?",
        ),
    ],
)
def test_a_draw_that_cannot_be_made_is_refused(options, message):
    with pytest.raises(LptError) as error:
        sampled(**options)
    assert str(error.value) == message


def test_without_validation_rows_all_others_train():
    whole = sampled(without("dev"), k_dev=0)
    assert (whole.train, whole.validation) == (TRAIN, None)
    assert list(whole.by_name()) == ["train", "test"]
    assert sampled(k_dev=0).validation is None  # nor the dev split, though it is free
    few = sampled(protocol="per_class", k=12, k_dev=0)
    assert (sizes(few.train), few.validation) == ([12, 12, 12], None)


def test_without_test_rows_nothing_is_tested():
    rows = sampled({"train": TRAIN}, k_dev=30)
    assert (rows.test, rows.tests()) == (None, {})
    assert set(rows.describe(LABELS)["sizes"]) == {"train", "validation"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_class_without_an_example_is_told(protocol):
    with pytest.raises(LptError) as error:
        sampled(ALL | {"train": table([30, 0, 30])}, protocol, k=6, k_dev=6)
    assert str(error.value) == "class 'fair' has no training row; add some to the data or remove it from task.labels"


# What is told of a draw


def test_a_draw_is_described_by_sizes_classes_and_fingerprints():
    facts = sampled(without("test"), "per_class", k=4, k_dev=2).describe(LABELS)
    assert facts["sizes"] == {"train": 12, "validation": 6, "test": 15}
    assert facts["sizes_per_class"] == {
        "train": {"bad": 4, "fair": 4, "good": 4},
        "validation": {"bad": 2, "fair": 2, "good": 2},
        "test": {"bad": 5, "fair": 5, "good": 5},
    }
    assert facts["test_split"] == "dev"
    assert len(set(facts["fingerprint"].values())) == 3


def fingerprints(train: LabeledRows, labels=LABELS) -> dict[str, str]:
    return sample_splits(ALL | {"train": train}, labels, "full", None, 1, 13).describe(labels)["fingerprint"]


def test_a_fingerprint_is_of_texts_and_class_names_alone():
    labels = list(reversed(LABELS))
    recoded = LabeledRows(TRAIN.sentences, [2 - label for label in TRAIN.labels], [i + 7 for i in TRAIN.index])
    assert fingerprints(recoded, labels)["train"] == fingerprints(TRAIN)["train"]
    pairs = LabeledRows([("a", "b"), ("c", "d"), ("e", "f")], [0, 1, 2], [0, 1, 2])
    assert fingerprints(pairs)["train"] == fingerprint(["a", "b", "bad", "c", "d", "fair", "e", "f", "good"])


@pytest.mark.parametrize("change", ["text", "label", "order", "pair"])
def test_a_fingerprint_changes_with_any_row(change):
    sentences, labels = list(TRAIN.sentences), list(TRAIN.labels)
    if change == "text":
        sentences[217] = ("train 217.",)
    elif change == "label":
        labels[217] = (labels[217] + 1) % 3
    elif change == "order":
        sentences[:2], labels[:2] = sentences[1::-1], labels[1::-1]
    else:
        sentences[217] = ("train", "217")
    changed, original = fingerprints(LabeledRows(sentences, labels, TRAIN.index)), fingerprints(TRAIN)
    assert changed["train"] != original["train"]
    assert (changed["validation"], changed["test"]) == (original["validation"], original["test"])
