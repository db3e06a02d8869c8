"""What was trained, in forms that others run without this project: ONNX, torch.export, and peft adapters.

    onnx     the whole classifier: token ids in, class probabilities out; runs on onnxruntime alone
    torch    the same as a program of torch.export; runs on PyTorch alone
    peft     LoRA as an ordinary adapter folder of peft; runs on peft and transformers

Each is a folder that is whole by itself. It appears when it has been loaded back and has answered probe texts as the
classifier does. Importing this module does not import torch.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lpt.adapter import AdapterConfig, adapter_folder, load_adapter_config
from lpt.errors import LptError, did_you_mean
from lpt.files import new_folder

FORMATS = {  # and what each needs besides this project, with the extra that brings it
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "torch": ((), ""),
    "peft": (("peft",), "peft"),
}
PEFT_HEADS = ("label_words", "vocabulary", "continuation", "linear")


def export(
    adapter: str | Path,
    format: str,
    output: str | Path,
    backbone: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
) -> float:
    """Write a trained classifier in a form that others run.

    Args:
        adapter: a run folder, its `adapter/` alone, or a hub id.
        format: `onnx`, `torch` or `peft`.
        output: the folder to make; it must not exist.
        backbone: where the backbone is now, if not where the adapter was trained on it.
        plugins: Python files with the method, generator or head of the adapter, if they are the user's own.

    Returns:
        The largest difference of what was written, loaded back, from the classifier, over the probe texts: of
        probabilities, or of class scores (peft).

    Raises:
        LptError: unknown format, a folder that exists, a library that is not installed, or an adapter that the format
            cannot express; with the reason, and before torch is imported where it is known by then.
    """
    output = Path(output).expanduser()
    _check(format, output)
    folder = adapter_folder(adapter)
    config = load_adapter_config(folder)
    if format == "peft":
        check_peft(config)
    if plugins:
        from lpt.registry import load_plugins

        load_plugins(plugins)
    from lpt.classifier import LatePromptClassifier

    with new_folder(output) as unfinished:
        classifier = LatePromptClassifier.from_pretrained(folder, "cpu", "32", backbone=backbone)
        if format == "peft":
            from lpt.export.lora import write_peft

            return write_peft(classifier, unfinished)
        from lpt.export.program import write_program

        return write_program(classifier, format, unfinished)


def _check(format: str, output: Path) -> None:
    """Raises LptError for what is wrong with the request itself."""
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise LptError(f"format={format!r} is not known; choose one of {known}{did_you_mean(format, FORMATS)}")
    if output.suffix in (".onnx", ".pt2"):
        raise LptError(
            f"{output}: an export is a folder, with the model, the tokenizer and how to run them; name a folder, such "
            f"as {output.with_suffix('')}"
        )
    if output.exists():
        raise LptError(f"{output} exists; choose another folder, or remove it first")
    libraries, extra = FORMATS[format]
    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise LptError(f"format={format} needs {', '.join(missing)}: pip install 'lpt[{extra}]'")


def check_peft(config: AdapterConfig) -> None:
    """Check what an adapter's configuration says of whether peft can express it.

    Raises:
        LptError: it cannot, with the reason.
    """
    reason = None
    read_only = config.settings.get("read_only", False)
    if config.method != "lora":
        reason = f"method={config.method} trains more than LoRA, or something else"
    elif config.head not in PEFT_HEADS:
        reason = f"head={config.head} is none of {', '.join(PEFT_HEADS)}, which plain models can have"
    elif read_only and "{mask}" in config.template:
        reason = (
            "with lpt.read_only=true the mask token alone has LoRA, and peft's aLoRA is for decoders; train with "
            "lpt.read_only=false"
        )
    elif read_only and config.head == "linear":
        reason = "peft activates read-only LoRA (aLoRA) in language models alone, and head=linear is none"
    elif read_only and config.template.endswith("}"):
        reason = (
            f"aLoRA begins at fixed tokens, and the template {config.template!r} ends with the text itself; train with "
            "words behind it"
        )
    if reason is not None:
        raise LptError(f"format=peft cannot express this adapter: {reason}. Use format=onnx or format=torch")
