import json
import os
import subprocess
import sys

import pytest
from matplotlib.image import imread
from places import REPOSITORY
from tiny_bench import CANDIDATES, composed, measured, options

from lpt.bench import measure as measuring
from lpt.bench import run as running
from lpt.bench.run import measure_alone, run_bench
from lpt.bench.table import cost_table
from lpt.config.bench import measurements
from lpt.config.resolve import resolve
from lpt.errors import ConfigError, LptError


class Processes:
    """Stands for `measure_alone`: remembers what was to be measured; candidates in `failing` fail."""

    def __init__(self):
        self.started, self.failing = [], set()

    def __call__(self, method, config):
        self.started.append((method, config))
        if method in self.failing:
            return {"method": method, "error": "out of memory"}
        return measured(method, seconds=0.1 * len(self.started))


@pytest.fixture
def processes(monkeypatch):
    processes = Processes()
    monkeypatch.setattr(running, "measure_alone", processes)
    return processes


@pytest.fixture
def bench(tmp_path):
    def bench(*overrides):
        methods = "bench.methods=[lora,lpt,lpt_cached]"
        cfg = composed(methods, "bench.precisions=[32]", f"bench.output='{tmp_path}/out'", *overrides)
        return run_bench(resolve(cfg), measurements(cfg))

    return bench


@pytest.mark.parametrize(
    ("vary", "of_lora"),
    [("lpt.layer", [3]), ("generator.dropout", [None]), ("bench.tokens", [1, 2]), ("optim.batch_size", [1, 2])],
)
def test_a_baseline_is_measured_once_where_it_does_not_read_the_varied_option(bench, processes, vary, of_lora):
    values = [0, 0.5] if vary == "generator.dropout" else [1, 2]
    bench(f"bench.vary={vary}", f"bench.values={values}")
    group, name = vary.split(".")
    found = [(method, getattr(getattr(config, group), name)) for method, config in processes.started]
    assert found == [
        *(("lora", value) for value in of_lora),
        *(("lpt", value) for value in values),
        *(("lpt_cached", value) for value in values),
    ]


def test_each_candidate_has_the_defaults_of_its_own_method_except_for_the_chosen_one(bench, processes):
    bench("bench.methods=[late_lora,lpt,s_idpg,lora]", "method=lora", "method.rank=3")
    found = {candidate: config.method for candidate, config in processes.started}
    assert {candidate: method.name for candidate, method in found.items()} == {
        "late_lora": "lora",
        "lpt": "lpt",
        "s_idpg": "s_idpg",
        "lora": "lora",  # peft's own, which has settings of its own
    }
    assert found["late_lora"].rank == 3
    assert found["s_idpg"].bottleneck == 256


@pytest.fixture
def here(monkeypatch):
    """Measures in this process; quickly."""
    monkeypatch.setattr(measuring, "matmul_rate", lambda *arguments: 1e9)
    monkeypatch.setattr("gc.collect", lambda: None)

    def measure(candidate, config):
        try:
            return measuring.measure(candidate, config)
        except LptError as error:
            return {"method": candidate, "error": str(error)}

    monkeypatch.setattr(running, "measure_alone", measure)


def test_every_candidate_that_trains_something_can_be_measured(bench, here):
    wanted = [name for name in CANDIDATES if name != "per_label"]
    results = bench(f"bench.methods=[{','.join(wanted)}]", "bench.steps=1")["results"]
    errors = {result["method"]: result["error"] for result in results if "error" in result}
    assert errors.pop("alora").startswith("alora needs a decoder")
    assert errors.keys() == {f"zero_shot{ending}" for ending in ("", "_cached", "_read_only", "_read_only_cached")}
    assert all(error.startswith("this method trains nothing") for error in errors.values())
    for result in results:
        if "error" not in result:
            assert (result["cache_bytes"] > 0) == result["method"].endswith("_cached")


def test_a_later_first_layer_costs_less_and_cached_states_still_less(bench, here):
    names = ["adapter", "late_adapter", "late_adapter_cached"]
    results = bench(f"bench.methods=[{','.join(names)}]", "bench.steps=1")["results"]
    flop = [result["flop"] for result in results]
    assert flop == sorted(flop, reverse=True)
    trained = [result["trainable_parameters"] for result in results]
    assert trained[0] == 2 * trained[1] == 2 * trained[2]  # layers 1..4, and 3 and 4


def test_every_number_format_is_measured(bench, processes):
    bench("bench.precisions=[32,bf16]", "bench.methods=[lora,lpt]")
    assert [(method, config.trainer.precision) for method, config in processes.started] == [
        ("lora", "32"),
        ("lpt", "32"),
        ("lora", "bf16"),
        ("lpt", "bf16"),
    ]


def test_values_that_an_option_cannot_have_are_refused_before_anything_is_measured(bench, processes, tmp_path):
    with pytest.raises(ConfigError) as caught:
        bench("bench.vary=lpt.layer", "bench.values=[0,2,-1]")
    assert [complaint.partition(":")[0] for complaint in caught.value.complaints] == ["bench.values"] * 2
    assert "lpt.layer=0 must be at least 1" in str(caught.value)
    assert "lpt.layer=-1 must be at least 1" in str(caught.value)
    assert processes.started == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("values", ["[two]", "[[1],[3]]"])
def test_values_of_the_wrong_type_are_refused_as_well(bench, processes, values):
    with pytest.raises(ConfigError, match=r"lpt\.layer"):
        bench("bench.vary=lpt.layer", f"bench.values={values}")


def test_a_process_that_fails_is_shown_and_does_not_stop_the_others(bench, processes, capsys, tmp_path):
    processes.failing = {"lora"}
    results = bench()["results"]
    assert [result["method"] for result in results] == ["lora", "lpt", "lpt_cached"]
    assert ["error" in result for result in results] == [True, False, False]
    assert "lora, 32: out of memory\n" in capsys.readouterr().out
    assert "| lora | float32 | failed |" in (tmp_path / "out" / "bench.md").read_text()


def test_a_bench_of_failures_alone_is_an_error(bench, processes):
    processes.failing = {"lora", "lpt", "lpt_cached"}
    with pytest.raises(LptError, match="nothing could be measured"):
        bench()


def test_table_results_and_plot_are_written(bench, processes, tmp_path):
    processes.failing = {"lora"}
    found = bench("bench.vary=lpt.layer", "bench.values=[1,3]")
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "bench.md", "bench.png"]
    assert json.loads((out / "bench.json").read_text()) == found
    assert (out / "bench.md").read_text() == f"{found['title']}\n\n{cost_table(found).markdown()}"
    image = imread(out / "bench.png")
    assert image.shape[1] > image.shape[0] > 400
    assert image.std() > 0.05  # something is drawn


def test_there_is_no_plot_where_nothing_is_varied(bench, processes, tmp_path):
    bench()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "bench.md"]


@pytest.mark.parametrize(
    ("status", "stderr", "reason"),
    [(1, "Traceback:\n  ...\nValueError: odd\n", "ValueError: odd"), (-9, "", "ended with exit status -9 (-9: killed")],
)
def test_a_process_that_leaves_no_result_says_why(monkeypatch, status, stderr, reason):
    ended = subprocess.CompletedProcess([], status, stdout="", stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: ended)
    result = measure_alone("lora", resolve(composed()))
    assert set(result) == {"method", "error"}
    assert reason in result["error"]


@pytest.mark.e2e
def test_the_command_measures_in_processes_of_their_own(tmp_path):
    overrides = [
        "bench.methods=[lora,lpt_cached]",
        "bench.precisions=[32]",
        "bench.vary=lpt.layer",
        "bench.values=[2,3]",
        f"bench.output='{tmp_path}/out'",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lpt", "bench", *options(), *overrides],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"in {tmp_path}/out\n" in done.stdout
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [(result["method"], result["value"]) for result in found["results"]] == [
        ("lora", None),
        ("lpt_cached", 2),
        ("lpt_cached", 3),
    ]
    _, at_2, at_3 = (result["flop"] for result in found["results"])
    assert at_2 > at_3 > 0
    assert (tmp_path / "out" / "bench.png").stat().st_size > 10_000
