from collections import Counter

import numpy as np
import pytest

from lpt.data.held_out import hold_out_test
from lpt.data.rows import LabeledRows
from lpt.errors import LptError


def one_split(sizes):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    return LabeledRows(
        [(f"text {i} of class {label}",) for i, label in enumerate(labels)], labels, list(range(len(labels)))
    )


def class_sizes(rows):
    return [count for _, count in sorted(Counter(rows.labels).items())]


def test_rows_set_aside_are_stratified():
    parts = hold_out_test(one_split([700, 200, 100]), 100, balance=False)
    assert class_sizes(parts["test"]) == [70, 20, 10]
    assert class_sizes(parts["train"]) == [630, 180, 90]
    assert sorted(parts["train"].index + parts["test"].index) == list(range(1000))


def test_rows_set_aside_are_balanced_when_asked():
    parts = hold_out_test(one_split([700, 200, 100]), 60, balance=True)
    assert class_sizes(parts["test"]) == [20, 20, 20]
    assert class_sizes(parts["train"]) == [80, 80, 80]


def test_a_class_without_rows_does_not_empty_a_balanced_rows():
    rows = one_split([50, 0, 50])
    assert hold_out_test(rows, 10, balance=True) == hold_out_test(rows, 10, balance=False)


def test_rows_set_aside_are_drawn_not_taken_from_one_end():
    test = hold_out_test(one_split([500]), 100, balance=False)["test"]
    assert min(test.index) < 50
    assert max(test.index) >= 450
    assert test.index != list(range(2, 500, 5))


def test_setting_aside_does_not_depend_on_what_was_drawn_before():
    rows = one_split([30, 30])
    first = hold_out_test(rows, 10, balance=True)
    np.random.seed(1)
    np.random.random(3)
    assert hold_out_test(rows, 10, balance=True) == first


def test_no_text_is_in_train_and_test_however_it_is_written():
    originals = [f"Film NUMBER {i} was Straße" for i in range(100)]
    variants = [f"  film  number\t{i} was STRASSE\n" for i in range(100)]
    texts = [text for pair in zip(originals, variants, strict=True) for text in pair]
    rows = LabeledRows([(text,) for text in texts], [i % 2 for i in range(200)], list(range(200)))
    parts = hold_out_test(rows, 1000, balance=False)
    assert sorted(parts["train"].index + parts["test"].index) == list(range(0, 200, 2))  # the first of each
    assert len(parts["test"]) == 20


def test_pairs_are_the_same_only_if_both_sentences_are():
    rows = LabeledRows([("a", str(i % 10)) for i in range(30)], [0] * 30, list(range(30)))
    parts = hold_out_test(rows, 1000, balance=False)
    assert sorted(parts["train"].index + parts["test"].index) == list(range(10))


def test_rows_without_text_are_dropped():
    texts = [("",), (" \t\n",), ("\u00a0",), *((f"film {i}",) for i in range(10))]
    parts = hold_out_test(LabeledRows(texts, [0] * 13, list(range(13))), 1000, balance=False)
    assert sorted(parts["train"].index + parts["test"].index) == list(range(3, 13))


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("texts", [["one", "two", "three", "four"], ["", " "], ["same"] * 50])
def test_too_few_different_texts_to_set_any_aside_are_refused(texts, balance):
    rows = LabeledRows([(text,) for text in texts], [i % 2 for i in range(len(texts))], list(range(len(texts))))
    different = len({text for text in texts if text.strip()})
    with pytest.raises(LptError) as error:
        hold_out_test(rows, 1000, balance)
    if balance and different == 4:
        assert class_sizes(rows) == [2, 2]
    assert str(error.value) == (
        f"{different} rows (without empty and repeated texts) are too few to set test rows aside; "
        "name a test split or file"
    )


def test_what_was_left_out_is_counted_by_reason():
    texts = ["a", "A ", " ", *(f"film {i}" for i in range(20)), "film 0", "film 1"]
    labels = [0, 1, 0, *(i % 2 for i in range(20)), 0, 0]
    rows = LabeledRows([(text,) for text in texts], labels, list(range(25)), dropped={"lacking a column": 4})
    parts = hold_out_test(rows, 5, balance=True)
    assert parts["train"].dropped == {
        "lacking a column": 4,
        "without text": 1,
        "text of an earlier row": 1,
        "text of an earlier row with another label": 2,
        "surplus of the larger classes": 1,
    }
    assert parts["test"].dropped == {}
    assert len(parts["train"]) + len(parts["test"]) == 20
