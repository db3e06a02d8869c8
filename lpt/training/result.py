"""What a run has left behind: `result.json` in its folder."""

import json
from pathlib import Path
from typing import Any


def read_result(folder: Path) -> dict[str, Any]:
    """What `result.json` says; nothing, where it is not there."""
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
