import numpy as np

from lpt.training.loggers.finished_run import DashboardTable, most_telling
from lpt.training.predictions import SplitPredictions


def test_the_most_confident_mistakes_come_first_then_what_was_right_by_the_least():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    predictions = SplitPredictions(probabilities, gold=np.array([0, 1, 0, 1]), loss=0.5)
    assert most_telling(predictions).tolist() == [2, 1, 3, 0]


def test_of_a_regression_the_largest_errors_come_first():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])  # 0, 2.5 and 5
    predictions = SplitPredictions(probabilities, np.array([1.0, 2.5, 2.0]), 0.5, value_range=(0, 5))
    assert most_telling(predictions).tolist() == [2, 0, 1]


def test_a_table_in_markdown_keeps_bars_within_cells():
    table = DashboardTable(["text", "gold"], [["a | b", 1]])
    assert table.markdown().splitlines() == ["| text | gold |", "| --- | --- |", "| a \\| b | 1 |"]
