"""The script that completes `lpt` in a shell, as bash runs it."""

import subprocess
import sys

import pytest
from places import REPOSITORY

from lpt.cli import main

pytest.importorskip("shtab")
ASK = """
source "$1"
for line in "${@:2}"; do
  COMP_LINE="$line" COMP_POINT=${#line} COMPREPLY=()
  read -ra COMP_WORDS <<< "$line"
  [[ "$line" == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _lpt
  echo "${COMPREPLY[*]}"
done
"""
WANTED = {
    "lpt pre": "predict",
    "lpt predict --ba": "--backbone --batch-size",
    "lpt predict ru": "runs",
    "lpt evaluate runs --input te": "texts.csv",
    "lpt runs --sort ": "date score time",
    "lpt sweep re": "resume retry-failed results",
    "lpt train backb": "backbone backbone.",
    "lpt train method=lora backbone=mini": "backbone=minilm-l6",
}


def test_bash_completes_commands_options_paths_and_what_hydra_offers(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", "bash"])
    assert end.value.code == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "texts.csv").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "bin").mkdir()
    lpt = tmp_path / "bin" / "lpt"
    lpt.write_text(f'#!/bin/sh\nexec {sys.executable} -m lpt "$@"\n')
    lpt.chmod(0o755)
    environment = {"PATH": f"{lpt.parent}:/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
    command = ["bash", "-c", ASK, "bash", "./script", *WANTED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert dict(zip(WANTED, done.stdout.splitlines(), strict=True)) == WANTED
    assert done.stderr == ""
