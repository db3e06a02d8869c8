"""The words for how a backbone is placed and computed, each declared once; without torch, so that options can use them.

`backbone.attention`, `backbone.quantization`, `trainer.accelerator` and `trainer.precision` allow these.
"""

import re

AUTO = "auto"
# Leave the choice to the hardware (lpt.hardware).

EAGER, SDPA, LEAN = "eager", "sdpa", "lean"
ATTENTIONS = (EAGER, SDPA, LEAN)
# The textbook's products, PyTorch's fused kernels, and this project's own for short texts (lpt.backbones.attention).

QUANTIZATIONS = ("int8", "nf4")
# Bits of the layers' weights: 8, or 4 on GPUs.

ACCELERATORS = ("cpu", "gpu")

PRECISIONS = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
# As options call number formats -> as PyTorch does.


def is_hub_id(path: str) -> bool:
    """Whether this has the form of a repository of the Hugging Face hub: `<name>` or `<owner>/<name>`."""
    return re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path, re.ASCII) is not None
