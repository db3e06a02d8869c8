from made_runs import older, write_run

from lpt.report.configurations import distinguishing_options, make_boards
from lpt.report.runs import collect_runs


def boards(folder):
    return make_boards(collect_runs(folder))


def labels(board):
    return {c.label: c.seeds for c in board.configurations}


def test_runs_that_differ_in_their_seed_alone_are_one_configuration(tmp_path):
    for seed in (42, 13, 100):
        write_run(tmp_path / f"{seed}", seed=seed)
    (board,) = boards(tmp_path)
    assert labels(board) == {"lpt": [13, 42, 100]}
    assert board.varying == []


def test_a_configuration_is_named_by_what_varies_within_its_method(tmp_path):
    write_run(tmp_path / "a", generator__name="npg")
    write_run(tmp_path / "b", generator__name="none")
    write_run(tmp_path / "c", method="lora")
    write_run(tmp_path / "d", method="lora", lpt__layer=16, method__targets="all")
    write_run(tmp_path / "e", method="bitfit")
    (board,) = boards(tmp_path)
    assert set(labels(board)) == {"lpt · npg", "lpt · none", "lora · layer 1", "lora · layer 16 · all", "bitfit"}


def test_what_follows_from_the_method_tells_nothing_apart(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", method="lora")  # with a learning rate of its own
    assert distinguishing_options(collect_runs(tmp_path)) == ["method.name"]


def test_an_option_that_older_runs_do_not_know_tells_nothing_apart_at_its_default(tmp_path):
    write_run(tmp_path / "before", seed=13)
    write_run(tmp_path / "since", seed=21, trainer__nodes=1, generator__init="default")
    write_run(tmp_path / "other", seed=21, trainer__nodes=1, generator__init="states")
    (board,) = boards(tmp_path)
    assert labels(board) == {"generator.init=default": [13, 21], "generator.init=states": [21]}


def test_an_unnamed_option_that_follows_from_others_is_left_out(tmp_path):
    for k in (16, 32):
        write_run(tmp_path / f"{k}", fewshot__k=k, fewshot__k_dev=k)
    write_run(tmp_path / "long", fewshot__k=16, fewshot__k_dev=16, optim__batch_size=32)
    (board,) = boards(tmp_path)
    assert set(labels(board)) == {"k=16", "k=32", "k=16 · optim.batch_size=32"}


def test_a_name_leaves_out_what_most_configurations_of_its_method_have(tmp_path):
    """One option changed at a time, as in an ablation: each is named by what was changed."""
    write_run(tmp_path / "plain")
    write_run(tmp_path / "layer", lpt__layer=8)
    write_run(tmp_path / "length", lpt__prompt_length=20)
    write_run(tmp_path / "none", generator__name="none")
    (board,) = boards(tmp_path)
    assert set(labels(board)) == {"npg", "npg · layer 8", "npg · P=20", "none"}
    assert {c.label: c.usual for c in board.configurations}["npg · layer 8"] == ["P=5"]


def test_a_value_that_has_no_words_is_the_only_one_left_out(tmp_path):
    for i, rank in enumerate((None, 16, 16)):
        write_run(tmp_path / f"{i}", method="lora", method__rank=rank, optim__batch_size=16 * (1 + i))
    (board,) = boards(tmp_path)
    ranked = {f"r=16 · optim.batch_size={size}" for size in (32, 48)}
    assert set(labels(board)) == {"optim.batch_size=16"} | ranked


def test_the_default_layer_and_the_same_one_named_are_one_configuration(tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2, lpt__layer=16)
    (board,) = boards(tmp_path)
    assert labels(board) == {"lpt": [1, 2]}


def test_tasks_backbones_and_test_rows_are_boards_of_their_own(tmp_path):
    for method in ("lpt", "lora"):
        write_run(tmp_path / f"a {method}", method=method)
        write_run(tmp_path / f"b {method}", method=method, task="other")
        write_run(tmp_path / f"c {method}", method=method, backbone="large")
        write_run(tmp_path / f"d {method}", method=method, result={"data": {"fingerprint": {"test": "changed"}}})
    found = [(board.task, board.backbone, board.test_set) for board in boards(tmp_path)]
    assert sorted(found) == [
        ("other", "tiny", "other"),
        ("reviews", "large", "reviews"),
        ("reviews", "tiny", "changed"),
        ("reviews", "tiny", "reviews"),
    ]


def test_backbones_are_compared_where_they_are_all_that_varies(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", backbone="large")
    (board,) = boards(tmp_path)
    assert board.backbone is None
    assert set(labels(board)) == {"tiny", "large"}


def test_failed_and_unfinished_runs_stay_with_their_configuration(tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2, error="out of memory")
    write_run(tmp_path / "c", seed=3, unfinished=True)
    write_run(tmp_path / "d", method="lora", error="no such layer")
    (board,) = boards(tmp_path)
    lora, lpt = sorted(board.configurations, key=lambda c: c.label)
    assert (lpt.seeds, [run.seed for run in lpt.others]) == ([1], [2, 3])
    assert (lora.seeds, [run.error for run in lora.others]) == ([], ["no such layer"])


def test_of_two_runs_with_the_same_seed_the_newer_one_counts(tmp_path):
    older(write_run(tmp_path / "z"), seconds=60)
    write_run(tmp_path / "a")
    (board,) = boards(tmp_path)
    (configuration,) = board.configurations
    assert [run.name for run in configuration.runs] == ["a"]
    assert [run.name for run in configuration.others] == ["z"]
