"""Hydra's groups `method`, `generator` and `head`: a choice for each class that is registered, without a file.

A file of the same group, such as `<--config-dir>/method/wide_lora.yaml`, may add choices of its own.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore

from lpt.config.declarations import Declaration, declared
from lpt.config.fields import options_class
from lpt.config.resume import register_resolvers
from lpt.config.schema import Config, LocalQueueConfig, OptunaConfig, SubmititSlurmConfig
from lpt.registry import KINDS


def offer_choices(plugins: tuple[str, ...] = ()) -> None:
    """Have Hydra know the schema, and what the project and these files of the user's declare, and nothing else.

    Raises:
        LptError: as `declared`.
    """
    register_resolvers()
    ConfigStore.instance().repo.update(_choices(plugins))


@cache
def _choices(plugins: tuple[str, ...]) -> dict[str, Any]:
    """Kind -> its choices as Hydra stores them; made once, as each takes some milliseconds."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="hydra/launcher", name="local_queue", node=LocalQueueConfig)
    store.store(group="hydra/launcher", name="submitit_slurm", node=SubmititSlurmConfig)
    store.store(group="hydra/sweeper", name="optuna", node=OptunaConfig)
    declarations = declared(plugins)
    for kind in KINDS:
        store.repo.pop(kind, None)  # choices of other plugins
    for declaration in declarations.all():
        cls = options_class(declaration.kind, declaration.name, plugins)
        node = {declaration.kind: cls, **_nested(declaration), "defaults": _overrides(declaration)}
        store.store(group=declaration.kind, name=declaration.name, node=node, package="_global_")
    return {kind: store.repo[kind] for kind in KINDS}


def _nested(declaration: Declaration) -> dict[str, Any]:
    """The settings of other groups as a tree: `{"optim": {"lr": 4e-4}}`."""
    tree: dict[str, Any] = {}
    for key, value in declaration.settings.items():
        group, _, option = key.partition(".")
        if option and group != declaration.kind:
            tree.setdefault(group, {})[option] = value
    return tree


def _overrides(declaration: Declaration) -> list[Mapping[str, Any]]:
    """The choices that come with it, as a defaults list."""
    return [{f"override /{key}": value} for key, value in declaration.settings.items() if "." not in key]
