"""Who may know what: each framework behind one package, and a command line that does not wait for torch.

Also what keeps every file readable: each module says what it is for, and no function is longer than a screen.
"""

import ast
import subprocess
import sys

import pytest
from places import REPOSITORY

MODULES = sorted((REPOSITORY / "lpt").rglob("*.py"))
SOURCES = [*sorted((REPOSITORY / "hydra_plugins").glob("*.py")), *MODULES]
SCREEN = 60  # lines
ALLOWED = {  # module -> where it may be imported
    "hydra": ("lpt/config/", "hydra_plugins/", "lpt/sweep/launcher.py", "lpt/sweep/search.py"),
    "omegaconf": ("lpt/config/", "hydra_plugins/", "lpt/sweep/launcher.py", "lpt/sweep/search.py"),
    "pytorch_lightning": ("lpt/training/",),
    "transformers.models": ("lpt/backbones/",),
    "transformers.pytorch_utils": ("lpt/backbones/",),
    "transformers.modeling_utils": ("lpt/backbones/",),
    "peft": ("lpt/methods/lora.py", "lpt/bench/", "lpt/export/lora.py"),
    "lpt.training": (
        "lpt/training/",
        "lpt/api.py",
        "lpt/config/main.py",
        "lpt/cli/replay.py",
        "lpt/cli/layers.py",
        "lpt/config/command_line.py",
        "lpt/sweep/",
        "lpt/report/",
    ),  # the last three: result.py alone
}


def parsed(path):
    """The syntax tree of a source file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path):
    """Names of all modules that a file imports, wherever in it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", ALLOWED)
def test_a_framework_is_known_to_its_own_package_alone(module):
    offenders = {
        str(path.relative_to(REPOSITORY))
        for path in SOURCES
        if any(name == module or name.startswith(f"{module}.") for name in imported(path))
    }
    assert [path for path in sorted(offenders) if not path.startswith(ALLOWED[module])] == []
    assert offenders or module == "transformers.modeling_utils"  # the rule is about something


def test_sweeps_and_reports_know_of_training_only_what_a_run_leaves_behind():
    for path in SOURCES:
        if path.relative_to(REPOSITORY).parts[1] in ("sweep", "report") or path.name == "command_line.py":
            found = {name for name in imported(path) if name.startswith("lpt.training")}
            assert all(name.startswith("lpt.training.result") for name in found), path


def test_every_module_of_the_package_says_what_it_is_for():
    assert [str(path.relative_to(REPOSITORY)) for path in MODULES if not ast.get_docstring(parsed(path))] == []


def test_no_function_of_the_package_is_longer_than_a_screen():
    too_long = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}, {lines} lines"
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > SCREEN
    ]
    assert too_long == []


@pytest.mark.parametrize(
    "code",
    [
        "import lpt",
        "import lpt.cli; lpt.cli.main(['--help'])",
        "import lpt.config.main, sys; sys.argv[1:] = ['--help', 'all']; lpt.config.main.main()",
        "import lpt.config.main, sys; sys.argv[1:] = ['lpt.layr=3']; lpt.config.main.main()",
        "import lpt.config.main, sys; sys.argv[1:] = ['backbone=minilm-l6', 'head=x']; lpt.config.main.main()",
    ],
    ids=["import", "lpt --help", "--help all", "unknown option", "unknown choice"],
)
def test_help_and_bad_options_do_not_wait_for_torch(code):
    check = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\n"
        "heavy = [name for name in ('torch', 'transformers', 'pytorch_lightning', 'datasets') if name in sys.modules]\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
