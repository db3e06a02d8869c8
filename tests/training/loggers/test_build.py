import pytest

from lpt.errors import ConfigError
from lpt.training.first_process import announce_rank
from lpt.training.loggers.build import build_loggers, closing
from lpt.training.loggers.dashboard import Dashboard
from lpt.training.loggers.metrics_file import MetricsFile


@pytest.mark.parametrize(
    ("name", "packages"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow and sqlalchemy and alembic")]
)
def test_a_logger_whose_library_is_missing_names_the_extra_at_once(experiment, monkeypatch, name, packages):
    monkeypatch.setattr("lpt.config.checks.find_spec", lambda package: None)
    with pytest.raises(ConfigError) as error:
        experiment.config(f"logger={name}")
    assert error.value.complaints == [f"logger={name} needs {packages}, not installed here: pip install 'lpt[{name}]'"]


def test_logger_none_writes_no_metrics_but_a_result(experiment):
    experiment.run("none", "logger=none", "trainer.max_steps=2")
    assert not (experiment.run_dir("none") / "metrics.csv").exists()
    assert experiment.result("none")["status"] == "completed"


def test_processes_but_the_first_have_no_dashboard(experiment, tmp_path):
    announce_rank(1)
    try:
        loggers = build_loggers(experiment.config("logger=tensorboard"), tmp_path, None)
    finally:
        announce_rank(0)
    assert [type(logger) for logger in loggers] == [MetricsFile]


class Remembering(Dashboard):
    """Keeps how it was ended."""

    ended: bool | None = None
    name, version = "remembering", 0

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def end(self, failed):
        self.ended = failed


def test_dashboards_hear_whether_the_run_failed():
    good, bad = Remembering(), Remembering()
    with closing([good]):
        assert good.ended is None
    with pytest.raises(KeyboardInterrupt), closing([bad]):
        raise KeyboardInterrupt
    assert (good.ended, bad.ended) == (False, True)


class Failing(Remembering):
    """Fails where it is told to."""

    def __init__(self, at):
        super().__init__()
        self.at, self.calls = at, []

    def log_metrics(self, metrics, step=None):
        self.call("log_metrics")

    def show(self, run):
        self.call("show")

    def end(self, failed):
        self.call("end")

    def call(self, name):
        self.calls.append(name)
        if name == self.at:
            raise ConnectionError("no route to host\nand much more")


@pytest.mark.parametrize(("at", "calls"), [("log_metrics", 1), ("show", None), ("end", None)])
def test_a_dashboard_that_fails_is_left_with_one_warning_and_the_run_is_completed(
    experiment, monkeypatch, capsys, at, calls
):
    dashboard = Failing(at)
    monkeypatch.setattr("lpt.training.loggers.build.TensorBoardDashboard", lambda *_: dashboard)
    experiment.run(f"fails in {at}", "logger=tensorboard", "trainer.max_steps=3")
    assert experiment.result(f"fails in {at}")["status"] == "completed"
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: logger=tensorboard has failed and hears no more of this run (no route to host); the run is not "
        "affected, and its folder has everything"
    ]
    assert dashboard.calls[-1] == at
    assert calls in (None, len(dashboard.calls))
