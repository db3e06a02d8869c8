"""How to run it all again: what the command lines of the runs share, and what varies among them."""

import math
from collections.abc import Sequence

from lpt.report.runs import Run


def split_overrides(runs: Sequence[Run]) -> tuple[list[str], dict[str, list[str]]]:
    """Return (overrides that all runs share, option -> its values where they vary); `""`: a run lacks the option."""
    lines = [dict(override.partition("=")[::2] for override in run.overrides) for run in runs]
    options = dict.fromkeys(option for line in lines for option in line)
    shared, varying = [], {}
    for option in options:
        values = list(dict.fromkeys(line.get(option, "") for line in lines))
        if len(values) == 1:
            shared.append(f"{option}={values[0]}")
        else:
            varying[option] = values
    return shared, varying


def commands_for(runs: Sequence[Run]) -> list[str]:
    """Return one sweep where the runs are all combinations of what varies, else a command for each run."""
    shared, varying = split_overrides(runs)
    lines = list(dict.fromkeys(tuple(run.overrides) for run in runs))
    start = "python train.py"
    if not varying:
        return [" ".join([start, *map(shell_quoted, shared)])]
    everything = math.prod(map(len, varying.values())) == len(lines)
    if everything and all(values and "" not in values and not _has_comma(values) for values in varying.values()):
        swept = [shell_quoted(f"{option}={','.join(values)}") for option, values in varying.items()]
        return [" ".join([start, "-m", *map(shell_quoted, shared), *swept])]
    return [" ".join([start, *map(shell_quoted, line)]) for line in sorted(lines)]


def shell_quoted(override: str) -> str:
    """Quote an override for a shell, if it needs that."""
    plain = all(character.isalnum() or character in "=._-+/,:@%" for character in override)
    return override if plain else "'" + override.replace("'", "'\\''") + "'"


def _has_comma(values: Sequence[str]) -> bool:
    return any("," in value for value in values)
