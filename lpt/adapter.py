"""The trained part on disk: kilobytes that, with the backbone's name, are the whole classifier.

adapter/adapter.safetensors     the trained tensors
adapter/adapter_config.json     what to build: backbone, prompt layer, generator, head, labels, template; what it should
                                say of a few texts; how it was trained
adapter/README.md               the same for people: a model card
"""

import hashlib
import json
import os
import shlex
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.backbones.names import is_hub_id
from lpt.data.reading import Reading, TextFormat
from lpt.errors import LptError
from lpt.files import nearest_path, whole_file, write_text

if TYPE_CHECKING:  # so that a wrong folder is told before torch is imported
    from torch import Tensor, nn

    from lpt.probe import Probe

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter.safetensors"
IN_RUN = "adapter"  # the folder within a run's
CARD_NAME = "README.md"
FORMAT = 4


@dataclass(frozen=True)
class AdapterConfig:
    """Everything needed to build a classifier, but the backbone's weights."""

    task: str
    backbone: str
    # Hub id, local folder or wheel:// URI.
    revision: str | None
    # The commit of a hub id that the adapter was trained on.
    method: str
    settings: dict[str, Any]
    # Of the method: for lpt layer, prompt_length, generator, bottleneck.
    head: str
    labels: list[str]
    label_words: dict[str, str]
    template: str
    # Of the backbone's kind, encoder or decoder.
    answer: str
    # What head=continuation scores.
    max_length: int
    # Tokens; longer texts are truncated.
    head_settings: dict[str, Any] = field(default_factory=dict)
    # Options that the head has of its own.
    space: bool = True
    # Whether a label word or answer follows after a space.
    value_range: list[float] | None = None
    # Of a regression: the values that the two labels stand for.
    reading: Reading = field(default_factory=Reading)
    # How the files were written that it was trained on; `lpt evaluate` and `lpt predict` read others the same way.
    temperature: float = 1.0
    # Divides the class scores before the softmax, which makes probabilities mean what they say (`lpt.calibration`).
    architecture: str = ""
    # Kind and sizes of the backbone, in words; known once it is found.
    weights: str = ""
    # The fingerprint of the backbone's weights (lpt/backbones/fingerprint.py); known once they are loaded.
    probe: "Probe | None" = None
    # What it says of a few fixed texts (`lpt.probe`); noted when it is saved.
    tensors: str = ""
    # SHA-256 of adapter.safetensors; noted when it is saved.
    training: dict[str, Any] = field(default_factory=dict)
    # How it was trained and what came of it (`lpt.training.record.training_summary`); empty where nobody has noted it.
    versions: dict[str, str] = field(default_factory=dict)
    # Of the libraries that it was trained with.
    format: int = FORMAT


def trained_state(module: "nn.Module") -> "dict[str, Tensor]":
    """Name -> trained tensor; the names of the parameters that require a gradient."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def save_adapter(folder: Path, config: AdapterConfig, module: "nn.Module") -> None:
    """Write the trained tensors of `module` and what they belong to, read them back, and put them in their place.

    What else is in the folder stays. The configuration, which knows the hash of the tensors, comes last: where the
    power fails in between, the adapter is refused and not half an old one.

    Raises:
        LptError: the folder cannot be written to, or what was written is not what is read.
    """
    from safetensors.torch import save

    from lpt.model_card import model_card

    state = {name: tensor.cpu().contiguous() for name, tensor in trained_state(module).items()}
    content = save(state, metadata={"format": "pt"})
    config = replace(config, tensors=hashlib.sha256(content).hexdigest())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as aside:
            new = Path(aside)
            with whole_file(new / WEIGHTS_NAME, binary=True) as file:
                file.write(content)
            write_text(new / CARD_NAME, model_card(config, sum(tensor.numel() for tensor in state.values())))
            write_text(new / CONFIG_NAME, json.dumps(asdict(config), indent=2, ensure_ascii=False) + "\n")
            load_adapter_config(new)
            load_tensors(new, config)
            for name in (WEIGHTS_NAME, CARD_NAME, CONFIG_NAME):
                os.replace(new / name, folder / name)
    except OSError as error:
        raise LptError(
            f"the adapter cannot be saved in {folder} ({error.strerror or error}); is the disk full, or the folder "
            "read-only or gone?"
        ) from None


def adapter_folder(adapter: str | Path, revision: str | None = None) -> Path:
    """The folder of an adapter that is named by itself, by its run, or by a hub id, from which it is then fetched.

    Args:
        adapter: folder or hub id.
        revision: of a hub id.

    Raises:
        LptError: nothing there, or a run or sweep without an adapter of its own.
    """
    folder = Path(adapter).expanduser()
    if not folder.exists():
        return _fetched(adapter, revision)
    if (folder / CONFIG_NAME).is_file():
        return folder
    if (folder / IN_RUN / CONFIG_NAME).is_file():
        return folder / IN_RUN
    raise LptError(f"{folder} holds no adapter ({CONFIG_NAME} is missing); {_why_none(folder)}")


def _fetched(adapter: str | Path, revision: str | None) -> Path:
    """The folder in the hub's cache; raises LptError at once for what can only be a mistyped path."""
    folder, name = Path(adapter).expanduser(), str(adapter)
    nearest = nearest_path(folder)
    if nearest or isinstance(adapter, Path) or not is_hub_id(name) or ("/" in name and folder.parent.is_dir()):
        raise LptError(f"{name}: there is no such folder{nearest}")
    from lpt.assets.hub import hub_trouble

    trouble = hub_trouble()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[WEIGHTS_NAME, CONFIG_NAME, CARD_NAME]))
    except (OSError, ValueError) as error:
        why = str(error).partition("\n")[0] if trouble is None else f"which is out of reach: {trouble}"
        raise LptError(f"{name!r} is neither a folder here nor an adapter on the hub ({why})") from error


def _why_none(folder: Path) -> str:
    if (folder / "sweep.db").is_file():
        return f"it is a sweep; name one of its runs, which this lists: lpt runs {shlex.quote(str(folder))}"
    if (folder / "result.json").is_file():
        return f"its run has failed, or there was nothing to train; to see which: lpt runs {shlex.quote(str(folder))}"
    if (folder / ".hydra").is_dir():
        return f"its run has not ended; resume it with: python train.py resume={shlex.quote(str(folder))}"
    return "give a run folder or its adapter/"


def load_adapter_config(folder: Path) -> AdapterConfig:
    """What an adapter folder says it is.

    Raises:
        LptError: no adapter there, a damaged one, or one of another format.
    """
    from lpt.calibration import COLDEST, HOTTEST  # here, so that no other command waits for numpy
    from lpt.probe import Probe

    path = folder / CONFIG_NAME
    if not path.is_file():
        raise LptError(f"{folder} holds no adapter ({CONFIG_NAME} is missing); {_why_none(folder)}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise LptError(f"{path} has format {values.get('format')!r}; this version of lpt reads format {FORMAT}")
        temperature = values.get("temperature", 1.0)
        if type(temperature) not in (int, float) or not COLDEST <= temperature <= HOTTEST:
            raise ValueError(f"temperature {temperature!r} is not a number from {COLDEST:g} to {HOTTEST:g}")
        reading = values["reading"]
        reading["format"] = TextFormat(**reading["format"])
        for fact in ("weights", "tensors"):
            if not values[fact]:
                raise ValueError(f"it does not say which {fact} it belongs to")
        probe = values.get("probe")
        found = None if probe is None else Probe(**probe)
        return AdapterConfig(**values | {"reading": Reading(**reading), "probe": found})
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise LptError(f"{path} is damaged ({error})") from error


def load_adapter_weights(folder: Path, module: "nn.Module") -> None:
    """Copy an adapter's tensors into the trained parameters of `module`.

    Raises:
        LptError: the file is missing or damaged, or names, shapes and formats are not exactly the trained ones.
    """
    state = load_tensors(folder, load_adapter_config(folder))
    check_state(module, state, f"{folder / WEIGHTS_NAME} does not fit its {CONFIG_NAME}")
    formats = {name: parameter.dtype for name, parameter in trained_state(module).items()}
    for name, tensor in state.items():
        if tensor.dtype != formats[name]:  # loading would round it without a word
            raise LptError(
                f"{folder / WEIGHTS_NAME}: {name} is {tensor.dtype}, expected {formats[name]}; copy the adapter folder "
                "again"
            )
    module.load_state_dict(state, strict=False)


def load_tensors(folder: Path, config: AdapterConfig) -> "dict[str, Tensor]":
    """The trained tensors by name.

    Raises:
        LptError: the file is missing, damaged, or not the one that the configuration was saved with.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS_NAME
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != config.tensors:
            raise LptError(
                f"{path} is not the file that {CONFIG_NAME} was saved with, or it is damaged (its SHA-256 differs); "
                "copy the adapter folder again"
            )
        return load(content)
    except (OSError, SafetensorError) as error:
        raise LptError(f"{path} could not be read ({error}); copy the adapter folder again") from error


def check_state(module: "nn.Module", state: "dict[str, Tensor]", problem: str) -> None:
    """Raises LptError, starting with `problem`, unless `state` is exactly what `module` trains, by name and shape."""
    expected = {name: tuple(tensor.shape) for name, tensor in trained_state(module).items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        differing = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        details = "; ".join(f"{n}: {found.get(n, 'absent')}, expected {expected.get(n, 'absent')}" for n in differing)
        raise LptError(f"{problem} ({details})")
