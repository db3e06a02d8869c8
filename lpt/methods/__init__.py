"""Ways to adapt a frozen backbone: late methods (`lpt.late_prompt`), each beginning at the layer it is told."""

import inspect
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lpt.errors import LptError, did_you_mean
from lpt.late_prompt import LateMethod, LatePromptModel
from lpt.methods.adapter import Adapter, AdapterDrop
from lpt.methods.frozen import Frozen
from lpt.methods.lora import LatePromptLora, Lora
from lpt.methods.prompts import InstanceDependentPrompt, PromptTuning, PTuningV2
from lpt.methods.weights import BitFit, Full

if TYPE_CHECKING:
    from lpt.config.schema import Config

METHODS: dict[str, type[LateMethod]] = {
    "lpt": LatePromptModel,
    "lpt_lora": LatePromptLora,
    "lora": Lora,
    "adapter": Adapter,
    "adapterdrop": AdapterDrop,
    "bitfit": BitFit,
    "full": Full,
    "prompt_tuning": PromptTuning,
    "p_tuning_v2": PTuningV2,
    "s_idpg": InstanceDependentPrompt,
    "linear_probe": Frozen,
    "zero_shot": Frozen,
}
ONLY_IN_TRAINING = ("dropout", "trunk_dropout")  # settings without which a trained method is the same


def build_method(name: str, model: Any, **settings: Any) -> LateMethod:
    """The method of this name over a Hugging Face model.

    Args:
        settings: those that the method has (`method_settings`); what is left out has its default.

    Raises:
        LptError: unknown name or setting, or whatever does not fit the backbone.
    """
    known = method_settings(name)
    for setting in settings:
        if setting not in known:
            raise LptError(f"method={name} has no setting {setting!r}; it has {', '.join(known)}")
    return METHODS[name](model, **settings)


def method_settings(name: str) -> list[str]:
    """Names of what can be set of a method.

    Raises:
        LptError: unknown name.
    """
    if name not in METHODS:
        raise LptError(f"method={name!r} is not known; choose one of {', '.join(METHODS)}{did_you_mean(name, METHODS)}")
    return [setting for setting in inspect.signature(METHODS[name]).parameters if setting != "model"]


def chosen_settings(config: "Config") -> dict[str, Any]:
    """The settings of the configured method, by the names that `build_method` knows."""
    generator = config.generator
    prompt = {
        **asdict(config.lpt),
        "generator": generator.name,
        "normalize": generator.normalize,
        "dropout": generator.dropout,
    }
    own = asdict(config.method)
    own["layer"] = own.pop("from_layer")
    given = own | prompt if has_late_prompt(config.method.name) else own
    known = method_settings(config.method.name)
    # A null leaves the choice to the method.
    return {name: value for name, value in given.items() if name in known and (value is not None or name == "layer")}


def has_late_prompt(name: str) -> bool:
    """Whether the method has a generator of the user's choice, and so takes `lpt.*` and `generator.*`."""
    return "generator" in method_settings(name)


def trains_backbone(name: str) -> bool:
    """Whether the backbone's own weights are trained, which takes float32."""
    return issubclass(METHODS[name], Full)
