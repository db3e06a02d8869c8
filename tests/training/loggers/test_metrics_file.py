import pytest

from lpt.training.loggers.metrics_file import MetricsFile


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_resumed_metrics_file_keeps_the_steps_up_to_the_checkpoint(tmp_path):
    first = MetricsFile(tmp_path, first_step=0)
    for step in range(6):
        first.log_metrics({"loss": step / 10}, step)
    resumed = MetricsFile(tmp_path, first_step=3)
    resumed.log_metrics({"loss": 9.0, "new": 1.0}, 3)
    resumed.save()
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "loss,new,step",
        "0.0,,0",
        "0.1,,1",
        "0.2,,2",
        "9.0,1.0,3",
    ]
