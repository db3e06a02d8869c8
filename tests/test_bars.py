"""A bar is drawn on a terminal alone, only if it takes a moment, and leaves nothing there."""

import io

import pytest
from rich.console import Console
from terminal import Terminal

from lpt import bars
from lpt.bars import Bar


@pytest.fixture
def terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(bars, "console", screen.console)
    return screen


def test_a_bar_shows_how_far_it_is_and_goes_away(terminal):
    with Bar("reading 10 texts", 10, delay=0) as bar:
        bar.update(4, "loss 0.3")
        bar._progress.refresh()
        (line,) = terminal.screen()
        assert line.startswith("reading 10 texts ━")
        assert line.endswith(" 4/10 eta --:-- loss 0.3")
        assert len(line) <= 80
    assert terminal.screen() == []


def test_what_takes_no_longer_than_a_moment_shows_no_bar(terminal):
    with Bar("evaluating", 10) as bar:
        bar.update(9)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "FORCE_COLOR"])
def test_a_file_gets_nothing(monkeypatch, environment):
    file = io.StringIO()
    monkeypatch.setattr(bars, "console", Console(file=file, _environ=environment))
    with Bar("evaluating", 10, delay=0) as bar:
        bar.update(9)
    assert file.getvalue() == ""
