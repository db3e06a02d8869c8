"""Where a task's files are in a folder of GLUE's or LM-BFF's layout."""

import re
from pathlib import Path

from lpt.errors import LptError


def find_folder(option: str, given: str, wanted: str, file: str) -> Path:
    """Find the folder with a file: the given one itself, or the folder in it that has the wanted name.

    Case, `-` and `_` in the name do not matter.

    Args:
        option: the option that names the folder, for error messages.
        given: that option's value.
        wanted: the name of the task's folder in it.
        file: the file that must be there; a `.csv` file of the same name will do.

    Raises:
        LptError: no such folder (the message lists those there are), or a folder of few-shot samples
            (`<k>-<seed>`) of which one must be named.
    """
    root = Path(given).expanduser()
    if not root.is_dir():
        raise LptError(f"{option}={given!r} is not a folder; give the folder that has {file}, or one above it")
    if file_in_layout(root, file).is_file():
        return root
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    matching = [path for path in folders if _plain(path.name) == _plain(wanted)]
    # The exact spelling wins over the others.
    folder = min(matching, key=lambda path: path.name != wanted, default=root)
    samples = sorted(path.name for path in folder.iterdir() if re.fullmatch(r"\d+-\d+", path.name))
    if not file_in_layout(folder, file).is_file() and samples:
        raise LptError(
            f"{folder} holds few-shot samples ({', '.join(samples)}); choose one, "
            f"as in {option}={folder / samples[0]} fewshot=full"
        )
    if not matching:
        raise LptError(
            f"{option}={given!r} has neither {file} nor a folder {wanted!r}; it has "
            f"{', '.join(path.name for path in folders) or 'no folders'}"
        )
    return folder


def file_in_layout(folder: Path, name: str) -> Path:
    """Return the file of this name, or, where it is missing, the `.csv` file: LM-BFF ships some tasks as CSV."""
    path = folder / name
    comma_separated = path.with_suffix(".csv")
    return comma_separated if comma_separated.is_file() and not path.is_file() else path


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).casefold()
