"""What a result depends on besides its configuration: versions, the state of the code, hardware."""

import subprocess
from importlib.metadata import version
from pathlib import Path

from lpt import __version__
from lpt.hardware import describe_hardware
from lpt.training.result import GitState, Hardware

PACKAGES = ("torch", "transformers", "pytorch-lightning", "hydra-core", "datasets", "lpt")


def package_versions() -> dict[str, str]:
    """Name -> installed version of the packages that results may depend on."""
    return {name: __version__ if name == "lpt" else version(name) for name in PACKAGES}


def git_state(folder: Path | None = None) -> GitState | None:
    """The commit of the checkout that `folder` is in, by default this code's; None outside a checkout."""
    folder = folder or Path(__file__).parent
    try:
        commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return GitState(commit, bool(changes))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def hardware(accelerator: str, processes: int) -> Hardware:
    """What times are measured on, with `processes` of them at work."""
    return Hardware(**describe_hardware(accelerator, processes))
