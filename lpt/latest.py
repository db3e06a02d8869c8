"""`runs/latest`, a link to the run or sweep that was started or resumed last, wherever runs are kept.

Every command takes it for a run folder. Where links cannot be made, there is none.
"""

import os
from contextlib import suppress
from pathlib import Path

NAME = "latest"


def point_latest(folder: Path) -> None:
    """Have `latest`, beside this folder, lead to it from now on.

    What else is called so is left alone, and so is the working directory, which is not a place where runs are kept.
    """
    link = folder.parent / NAME
    if folder.name == NAME or (link.exists() and not link.is_symlink()) or folder.parent.resolve() == Path.cwd():
        return
    new = link.with_name(f".{NAME}.{os.getpid()}")
    with suppress(OSError, NotImplementedError):
        new.symlink_to(folder.name, target_is_directory=True)
        try:
            os.replace(new, link)
        finally:
            new.unlink(missing_ok=True)


def follow(path: Path) -> Path:
    """The folder that a link leads to now; any other path as it is. To be asked once, since the next run moves it."""
    return path.parent / os.readlink(path) if path.is_symlink() else path
