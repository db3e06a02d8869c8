"""Messages are plain lines wherever they are printed."""

import subprocess
import sys
from importlib.util import find_spec

from lpt.cli.tables import print_table
from lpt.report.text_table import TextTable

KERNEL = """
import builtins, sys, types
class ZMQInteractiveShell: config = {}
builtins.get_ipython = ZMQInteractiveShell
sys.modules["ipykernel.zmqshell"], sys.modules["IPython"] = types.ModuleType("zmqshell"), builtins
import rich.console
assert rich.console._is_jupyter()
"""
RUN = """
from lpt.bars import Bar
from lpt.console import say
import tqdm.auto
with Bar("training", 2, delay=0) as bar:
    bar.update(1)
    say("step 1/2")
"""


def test_a_notebook_without_widgets_gets_plain_lines_and_no_warning():
    """Rich would write HTML and widgets there, and tqdm complains that it has none."""
    done = subprocess.run([sys.executable, "-c", KERNEL + RUN], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("step 1/2\n", "")
    complains = subprocess.run([sys.executable, "-c", f"{KERNEL}import tqdm.auto"], capture_output=True, text=True)
    assert ("IProgress not found" in complains.stderr) is (find_spec("ipywidgets") is None)


def test_a_text_in_a_table_cannot_steer_the_terminal(capsys):
    print_table(TextTable(["text", "rows"], [["\x1b[2J[bold]gone\x07", "1"]]))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "�[2J[bold]gone�" in printed
