from lpt.data.audit import Audit, audit
from lpt.data.rows import LabeledRows


def rows(*pairs, dropped=None):
    texts, labels = zip(*pairs, strict=True)
    return LabeledRows([(text,) for text in texts], list(labels), list(range(len(pairs))), dropped or {})


SPLITS = {
    "train": rows(("Fine", 1), ("fine ", 1), ("dull", 0), ("DULL", 1), ("", 0)),
    "validation": rows(("fine", 1), ("plot", 0)),
    "test": rows(("dull", 0), ("plot", 0), ("film", 1)),
    "test_other": rows(("film", 1)),
}


def test_repeated_contradictory_and_shared_rows_are_counted_whatever_their_case_and_spaces():
    assert audit(SPLITS, {"train": rows(("x", 0), dropped={"without text": 2}), "test": rows(("y", 0))}) == Audit(
        dropped={"train": {"without text": 2}},
        without_text={"train": 1},
        repeated={"train": 2},
        contradictory={"train": 2},
        shared={
            "test_other and test": 1,
            "test and validation": 1,
            "test and train": 1,
            "validation and train": 1,
        },
    )


def test_each_count_is_said_in_one_sentence_and_nothing_where_there_is_nothing_odd():
    dropped = {"lacking a column": 3, "without text": 1}
    assert list(audit(SPLITS, {"train": rows(("x", 0), dropped=dropped)}).messages()) == [
        "rows left out of train: 3 (lacking a column), 1 (without text)",
        "warning: 1 row of train has no text",
        "2 rows of train have the text of an earlier row",
        "warning: 2 rows of train have the text of a row with another label",
        "warning: 1 row of test_other has the text of a row of test",
        "warning: 1 row of test has the text of a row of validation",
        "warning: 1 row of test has the text of a row of train",
        "1 row of validation has the text of a row of train",
    ]
    assert list(audit({"train": rows(("a", 0)), "test": rows(("b", 0))}, {}).messages()) == []
