"""`lpt --print-completion bash`: the script with which a shell completes `lpt`.

It is made once and static, so that a shell need not start Python; only the options of `lpt train` are asked of Hydra.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpt.cli.arguments import folder

SHELLS = ("bash", "zsh")
# `lpt train` asks Hydra, whose words have = in them; a word that is to be continued is not followed by a space.
BASH = """
_lpt_train_options() {
  local typed=${COMP_LINE#*train}
  compgen -W "$(COMP_LINE="lpt$typed" COMP_POINT=$((${#typed} + 3)) lpt train -sc query=bash 2>/dev/null)" -- "$1"
}
_lpt() {
  _shtab_lpt "$@"
  [[ ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace 2>/dev/null
  return 0
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o bashdefault -F _lpt lpt
"""


class PrintCompletion(argparse.Action):
    """Prints the script of a shell, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: Any,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        """Print it."""
        import shtab

        _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
        print(shtab.complete(parser, str(values)) + (BASH if values == "bash" else ""))
        parser.exit()


def _complete_paths(parser: argparse.ArgumentParser, file: Any, directory: Any) -> None:
    """Have every argument that is a path completed as one, also those of the commands of this parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, file, directory)
        elif action.type is folder or action.dest in ("adapter", "adapters", "backbone", "glue"):
            action.complete = directory  # type: ignore[attr-defined]
        elif action.type is Path or action.dest == "plugin":
            action.complete = file  # type: ignore[attr-defined]
        elif action.dest == "train_options":
            action.complete = {"bash": "_lpt_train_options"}  # type: ignore[attr-defined]
