import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


@pytest.fixture(scope="module")
def events(experiment):
    """What the event files of a run hold."""
    experiment.run("tensorboard", "logger=tensorboard", "logger.rows=3", "trainer.max_epochs=2")
    found = EventAccumulator(str(experiment.run_dir("tensorboard") / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_gets_the_curves_of_metrics_csv(experiment, events, logged_columns):
    for column in logged_columns:
        found = {event.step: event.value for event in events.Scalars(column)}
        assert found == pytest.approx(experiment.curve("tensorboard", column)), column


def test_tensorboard_gets_results_and_tables(experiment, events, written_predictions, most_telling):
    result = experiment.result("tensorboard")
    (accuracy,) = events.Scalars("result/test/accuracy")
    assert accuracy.value == pytest.approx(result["metrics"]["test"]["accuracy"])

    def rows(name):
        (event,) = events.Tensors(f"test/{name}/text_summary")
        (text,) = make_ndarray(event.tensor_proto).tolist()
        return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.decode().splitlines()]

    head, _, *counts = rows("confusion_matrix")
    assert head == ["gold \\ predicted", "bad", "good"]
    predictions = written_predictions("tensorboard")
    for gold, *found in counts:
        of_gold = [row["predicted"] for row in predictions if row["gold"] == gold]
        assert [int(count) for count in found] == [of_gold.count("bad"), of_gold.count("good")]
    shown = rows("predictions")[2:]
    assert [int(row[0]) for row in shown] == [row["index"] for row in most_telling(predictions)[:3]]


def test_tensorboard_shows_the_steps_that_a_resumed_run_repeats_once(experiment, interrupted):
    interrupted("interrupted", "logger=tensorboard")
    folder = experiment.run_dir("interrupted")
    time.sleep(1.1)  # event files are told apart, and put in order, by the second of their name
    experiment.run("interrupted", "logger=tensorboard", f"resume='{folder}'")
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [*range(18)]
