import numpy as np
import pytest

from lpt.data.audit import Audit
from lpt.data.folds import folds
from lpt.data.rows import LabeledRows
from lpt.data.splits import Splits
from lpt.errors import LptError

CLASSES = ["a", "b", "c"]


def rows(texts, labels):
    train = LabeledRows([(text,) for text in texts], labels, list(range(len(texts))))
    return Splits(train, None, None, "test", {}, Audit(), [])


def many(n=47):
    return rows([f"text {i}" for i in range(n)], [i % 3 for i in range(n)])


@pytest.mark.parametrize("number", [2, 5, 7])
def test_every_row_is_tested_once_and_never_trained_on_there(number):
    whole, tested = many(), []
    for places, fold in folds(whole, number, CLASSES, seed=13):
        tested += places
        assert fold.test.sentences == [whole.train.sentences[place] for place in places]
        assert sorted(fold.train.index + fold.test.index) == whole.train.index
        assert fold.validation is None
        assert max(fold.test.sizes_per_class(CLASSES).values()) - min(fold.test.sizes_per_class(CLASSES).values()) <= 1
        assert abs(len(places) - 47 / number) <= 1
    assert sorted(tested) == whole.train.index


def test_the_division_is_that_of_the_seed():
    first, again, other = ([places for places, _ in folds(many(), 5, CLASSES, seed)] for seed in (1, 1, 2))
    assert first == again != other


def test_rows_of_one_text_are_in_one_fold():
    texts = [f"text {i % 20}" if i % 2 else f"TEXT  {i % 20}" for i in range(60)]
    for _, fold in folds(rows(texts, [i % 2 for i in range(60)]), 5, CLASSES[:2], seed=13):
        tested, trained = (
            {" ".join(text.casefold().split()) for (text,) in s.sentences} for s in (fold.test, fold.train)
        )
        assert tested.isdisjoint(trained)


def test_values_of_a_regression_are_divided_by_size():
    whole = rows([f"text {i}" for i in range(50)], [float(i) for i in range(50)])
    means = [np.mean(fold.test.labels) for _, fold in folds(whole, 5, None, seed=13)]
    assert max(means) - min(means) < 10


def test_a_class_in_one_fold_alone_is_told():
    few = rows([f"text {i}" for i in range(10)], [0] * 5 + [1] * 4 + [2])
    with pytest.raises(LptError, match="all texts of class 'c' are in one fold"):
        list(folds(few, 5, CLASSES, seed=13))


def test_fewer_texts_than_folds_are_told():
    with pytest.raises(LptError, match=r"fewshot\.folds=5: the training rows have 2 different texts"):
        list(folds(rows(["one", "two", "One"], [0, 1, 0]), 5, CLASSES[:2], seed=13))
