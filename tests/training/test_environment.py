import subprocess

from lpt.training.environment import PACKAGES, git_state, hardware, package_versions


def test_the_versions_of_what_results_depend_on_are_known():
    found = package_versions()
    assert list(found) == list(PACKAGES)
    assert all(found.values())


def test_a_checkout_has_a_commit_and_says_whether_it_has_changed(tmp_path):
    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    author = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    git(*author, "commit", "--allow-empty", "-m", "First")
    state = git_state(tmp_path)
    assert len(state.commit) == 40
    assert not state.changed
    (tmp_path / "new.txt").write_text("new")
    assert git_state(tmp_path).changed


def test_outside_a_checkout_there_is_no_git_state(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None


def test_hardware_names_device_and_threads():
    found = hardware("cpu", processes=2)
    assert found.devices == 2
    assert found.threads >= 1
    assert found.device
