import pytest

from lpt.data.folders import file_in_layout, find_folder
from lpt.errors import LptError


def find(folder, wanted="sst2"):
    return find_folder("task.data_dir", str(folder), wanted, "train.tsv")


def complaint(folder) -> str:
    with pytest.raises(LptError) as error:
        find(folder)
    return str(error.value)


def with_train(folder, name="train.tsv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("sentence\tlabel\n")
    return folder


@pytest.mark.parametrize("folder", ["SST-2", "sst2", "Sst_2"])
@pytest.mark.parametrize("wanted", ["SST-2", "s_s_t_2"])
def test_a_task_folder_is_found_whatever_its_case_and_separators(tmp_path, folder, wanted):
    with_train(tmp_path / folder)
    (tmp_path / "SST-21").mkdir()
    assert find(tmp_path, wanted) == tmp_path / folder


def test_of_several_spellings_the_exact_one_is_taken(tmp_path):
    for name in ("SST-2", "sst-2", "sst2"):
        with_train(tmp_path / name)
    assert find(tmp_path, "sst-2") == tmp_path / "sst-2"


def test_the_given_folder_may_be_the_tasks_own(tmp_path):
    assert find(with_train(tmp_path)) == tmp_path


def test_a_csv_file_will_do_where_the_tsv_file_is_missing(tmp_path):
    assert find(with_train(tmp_path, "train.csv")) == tmp_path
    assert file_in_layout(tmp_path, "train.tsv") == tmp_path / "train.csv"
    with_train(tmp_path)
    assert file_in_layout(tmp_path, "train.tsv") == tmp_path / "train.tsv"


def test_a_folder_of_several_few_shot_samples_asks_for_one_of_them(tmp_path):
    folder = tmp_path / "SST-2"
    for name in ("100-13", "100-21", "notes"):
        with_train(folder / name)
    example = f"task.data_dir={folder / '100-13'} fewshot=full"
    message = f"{folder} holds few-shot samples (100-13, 100-21); choose one, as in {example}"
    assert complaint(tmp_path) == message
    assert complaint(folder) == message
    assert find(folder / "100-21") == folder / "100-21"


def test_a_full_task_folder_may_also_hold_samples(tmp_path):
    with_train(tmp_path / "SST-2" / "100-13")
    assert find(tmp_path / "SST-2" / "100-13") == tmp_path / "SST-2" / "100-13"
    with_train(tmp_path / "SST-2")
    assert find(tmp_path) == tmp_path / "SST-2"


def test_a_missing_task_folder_is_reported_with_those_there_are(tmp_path):
    where = f"task.data_dir='{tmp_path}' has neither train.tsv nor a folder 'sst2'"
    assert complaint(tmp_path) == f"{where}; it has no folders"
    for name in ("RTE", "CoLA"):
        (tmp_path / name).mkdir()
    assert complaint(tmp_path) == f"{where}; it has CoLA, RTE"
    assert complaint(tmp_path / "nowhere") == (
        f"task.data_dir='{tmp_path / 'nowhere'}' is not a folder; give the folder that has train.tsv, or one above it"
    )
