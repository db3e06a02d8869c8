"""Messages are plain lines wherever they are printed."""

import subprocess
import sys


def test_a_notebook_gets_plain_lines():
    """Rich takes its cells for a screen of HTML and widgets."""
    code = (
        "import builtins\nclass ZMQInteractiveShell: config = {}\nbuiltins.get_ipython = ZMQInteractiveShell\n"
        "import rich.console; assert rich.console._is_jupyter()\n"
        "from lpt.bars import Bar; from lpt.console import say\n"
        "with Bar('training', 2, delay=0) as bar: bar.update(1); say('step 1/2')"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("step 1/2\n", "")
