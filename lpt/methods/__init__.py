"""Ways to adapt a frozen backbone: late methods (`lpt.late_prompt`), each beginning at the layer it is given."""

import inspect
from typing import TYPE_CHECKING, Any

from lpt.errors import LptError
from lpt.late_prompt import LateMethod
from lpt.methods import adapter, deep_prompts, frozen, ladder, lora, prompts, state_probe, weights  # noqa: F401  (each registers its methods)
from lpt.registry import METHODS

if TYPE_CHECKING:
    from lpt.backbones.families import Family
    from lpt.config.schema import Config


def build_method(name: str, model: Any, **settings: Any) -> LateMethod:
    """The method that is registered under `name`, over a Hugging Face model.

    Args:
        name: such as `lpt` or `lora`, or one of the user's own.
        model: a Hugging Face model, which is frozen and changed in place.
        settings: those that the method has (`method_settings`); what is left out has its default.

    Raises:
        LptError: unknown name or setting, or whatever does not fit the backbone.
    """
    known = method_settings(name)
    for setting in settings:
        if setting not in known:
            raise LptError(f"method={name} has no setting {setting!r}; it has {', '.join(known)}")
    method: LateMethod = METHODS[name](model, **settings)
    if any(p.requires_grad for twin in method.backbone.twins or () for p in twin.parameters()):
        raise LptError(
            f"method={name} trains the backbone's own weights, so with lpt.read_only=true texts need a copy of them: "
            f"its class must say `trains_backbone = True`"
        )
    return method


def method_settings(name: str) -> list[str]:
    """Names of what can be set of a method: its constructor's parameters, but for the model.

    Where the constructor ends in `**`, those of the class above too.

    Raises:
        LptError: unknown name.
    """
    known: dict[str, None] = {}
    for cls in METHODS[name].__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
            known |= {p.name: None for p in parameters if p.kind is not p.VAR_KEYWORD}
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return [setting for setting in known if setting not in ("self", "model")]


def chosen_settings(config: "Config", family: "Family") -> dict[str, Any]:
    """The settings of the configured method on a backbone of this family, by the names that `build_method` knows."""
    late, read_only = config.lpt, config.lpt.read_only
    if read_only is None:
        read_only = METHODS[config.method.name].reads_once and family.keys_values is not None
    given: dict[str, Any] = {"layer": late.layer, "read_only": read_only}
    given |= {"backbone_dropout": late.dropout, "trunk_dropout": late.trunk_dropout, **config.method.own()}
    if has_late_prompt(config.method.name):
        generator = config.generator
        given |= {"prompt_length": late.prompt_length, "bottleneck": late.bottleneck}
        given |= {"generator": generator.name, "normalize": generator.normalize}
        given |= {"dropout": generator.dropout, "generator_options": generator.own() or None}
    known = method_settings(config.method.name)
    # A null leaves the choice to the method.
    return {name: value for name, value in given.items() if name in known and (value is not None or name == "layer")}


def has_late_prompt(name: str) -> bool:
    """Whether the method has a generator of the user's choice, and so takes `lpt.*` and `generator.*`."""
    return "generator" in method_settings(name)


def trains_backbone(name: str) -> bool:
    """Whether the backbone's own weights are trained, which takes float32."""
    return METHODS[name].trains_backbone  # type: ignore[no-any-return]


def only_in_training(name: str) -> tuple[str, ...]:
    """Settings without which a trained method is the same."""
    return (*METHODS[name].only_in_training, "backbone_dropout", "trunk_dropout")
