"""Late Prompt Tuning: a frozen language model, and one small network that writes a soft prompt for each input."""

import time
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpt.api import Trained, fit, train
    from lpt.classifier import LatePromptClassifier
    from lpt.late_prompt import LatePromptModel
    from lpt.many_tasks import MultiTaskClassifier

__version__ = "0.2.0"
__all__ = ["LatePromptClassifier", "LatePromptModel", "MultiTaskClassifier", "Trained", "__version__", "fit", "train"]

# When the process began, as near as it can know: the clock of a command.
IMPORTED = time.perf_counter()

# What tqdm says in a notebook without ipywidgets, when transformers imports it: progress is in plain lines anyway.
warnings.filterwarnings("ignore", message="IProgress not found")

# Resolved on first use, so that `import lpt` (and `lpt --help`) does not wait for torch.
_HOMES = {
    "LatePromptModel": "lpt.late_prompt",
    "LatePromptClassifier": "lpt.classifier",
    "MultiTaskClassifier": "lpt.many_tasks",
    "Trained": "lpt.api",
    "fit": "lpt.api",
    "train": "lpt.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lpt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted(__all__)
