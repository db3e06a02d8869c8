import pytest

from lpt.data.task_checks import describe_problems
from lpt.data.tasks import FilesSource, HubSource, Task, Templates, TsvSource


def problems_of(**changes) -> list[str]:
    sound = {
        "labels": ["bad", "good"],
        "label_words": {"bad": "terrible", "good": "great"},
        "source": "files",
        "files": FilesSource(train="train.csv"),
    }
    return describe_problems(Task(**(sound | changes)))


def test_a_sound_task_has_no_problems():
    assert problems_of() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"labels": ["bad"], "label_words": None},
            "task.labels=['bad'] is too short: name at least two classes, as in [negative,positive]",
        ),
        (
            {"labels": ["bad", "good", "bad"]},
            "task.labels=['bad', 'good', 'bad'] names a class twice; remove one, or give it another name",
        ),
        (
            {"label_words": {"bad": "terrible", "god": "great"}},
            "task.label_words has 'god', which is not one of task.labels=['bad', 'good']; correct one of them",
        ),
        ({"label_words": ["terrible"]}, "task.label_words=['terrible'] must be a mapping, as in {a: b, c: d}"),
        (
            {"files": FilesSource(train="train.csv", values="1")},
            "task.files.values=1 must be a mapping, as in {a: b, c: d}",
        ),
        (
            {"metrics": ["acuracy"]},
            "task.metrics has 'acuracy', which is not known; choose from accuracy, f1, matthews",
        ),
        ({"metrics": []}, "task.metrics is empty; choose from accuracy, f1, matthews"),
        (
            {"metrics": ["f1"], "labels": ["bad", "fair", "good"]},
            "task.metrics has 'f1', which needs two classes; task.labels has 3; choose from accuracy, matthews",
        ),
        ({"source": "web"}, "task.source='web' is not known; choose one of hub, tsv, files, wheel"),
        ({"files": FilesSource()}, "task.files.train is not set; name the training split or file"),
        (
            {"source": "hub", "hub": HubSource()},
            "task.hub.path is not set: task custom has no hub source; use another task.source",
        ),
        (
            {"source": "tsv", "tsv": TsvSource()},
            "task.source=tsv needs task.data_dir=<folder with one folder per task>",
        ),
        (
            {"template": Templates(encoder="{a} ? {mask} , {b}")},
            "task.template.encoder='{a} ? {mask} , {b}' has {b}, but task.files.b names no column for it; set "
            "task.files.b=<column>, or remove {b}",
        ),
        (
            {"files": FilesSource(train="train.csv", b="question")},
            "task.files.b='question' has no use: task.template.encoder and task.template.decoder have no {b}; add it, "
            "or set task.files.b=null",
        ),
        (
            {"template": Templates(decoder="{a} is {")},
            "task.template='{a} is {' cannot be read: Single '{' encountered in format string",
        ),
    ],
)
def test_a_problem_is_told_once_and_exactly(changes, problem):
    assert problems_of(**changes) == [problem]


NUMBERS = {"value_range": [0, 5], "metrics": ["pearson"]}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"value_range": [5, 0]}, "task.value_range=[5, 0] must be two numbers, the lower one first, as in [0,5]"),
        ({"value_range": [0]}, "task.value_range=[0] must be two numbers, the lower one first, as in [0,5]"),
        (
            {"value_range": [0, float("nan")]},
            "task.value_range=[0, nan] must be two numbers, the lower one first, as in [0,5]",
        ),
        (
            {"labels": ["bad", "fair", "good"]},
            "task.value_range=[0, 5] needs two labels, one for each end; task.labels has 3",
        ),
        (
            {"metrics": ["pearson", "f1"]},
            "task.metrics has 'f1', which does not suit a regression (task.value_range=[0, 5]); choose from pearson, "
            "spearman",
        ),
        (
            {"value_range": None},
            "task.metrics has 'pearson', which does not suit a classification; choose from accuracy, f1, matthews",
        ),
        (
            {"files": FilesSource(train="train.csv", values={1: "bad"})},
            "task.files.values is for classes, but task.value_range=[0, 5] makes this a regression; set "
            "task.files.values=null",
        ),
        (
            {"files": FilesSource(train="train.csv", balance=True)},
            "task.files.balance=true is for classes, but task.value_range=[0, 5] makes this a regression; set "
            "task.files.balance=false",
        ),
    ],
)
def test_a_problem_of_a_regression_is_told_once_and_exactly(changes, problem):
    assert problems_of(**NUMBERS) == []
    assert problems_of(**(NUMBERS | changes)) == [problem]


@pytest.mark.parametrize(
    ("extra_tests", "problem"),
    [
        ("other.csv", "task.files.extra_tests=other.csv must be a mapping, as in {test_other: other.tsv}"),
        (
            {"validation": "other.csv"},
            "task.files.extra_tests has the name 'validation'; use letters, digits, _ and -, and none of the names "
            "train, dev, test, validation",
        ),
        (
            {"../test": "other.csv"},
            "task.files.extra_tests has the name '../test'; use letters, digits, _ and -, and none of the names "
            "train, dev, test, validation",
        ),
    ],
)
def test_a_problem_of_a_further_test_set_is_told(extra_tests, problem):
    assert problems_of(files=FilesSource(train="train.csv", extra_tests=extra_tests)) == [problem]
    assert problems_of(files=FilesSource(train="train.csv", extra_tests={"test_other": "other.csv"})) == []


def test_a_pair_needs_only_the_template_of_the_kind_of_backbone_in_use():
    files = FilesSource(train="train.csv", b="question")
    assert problems_of(files=files, template=Templates(decoder="{a} {b} They are")) == []


def test_all_problems_are_told_at_once():
    assert len(problems_of(labels=["bad"], metrics=["bleu"], files=FilesSource())) == 4
