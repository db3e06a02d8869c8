"""Compositions without a run: what `train.py` would run with given overrides."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lpt.config import schema
from lpt.config.explain import explain
from lpt.config.fields import BASES, Schema
from lpt.config.flags import Arguments, read_arguments
from lpt.config.groups import offer_choices
from lpt.errors import ConfigError

UNREADABLE = (HydraException, OmegaConfBaseException, YAMLError, ValueError)  # what composing can fail with


class Composer:
    """Composes configurations as `train.py` would with these arguments; from `composer`."""

    def __init__(self, arguments: Arguments, loader: ConfigLoader):
        self.arguments, self.loader = arguments, loader
        self._choices: dict[str, list[str]] = {}
        self._name = arguments["config_name"] or "config"
        folder = arguments["config_dir"]
        self._search = [] if folder is None else [f"hydra.searchpath=['file://{Path(folder).expanduser().absolute()}']"]

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The composition, with Hydra's own part under `hydra`.

        Raises:
            HydraException, OmegaConfBaseException, YAMLError, ValueError: it cannot be composed.
        """
        return compose(self._name, overrides=[*self._search, *overrides], return_hydra_config=True)

    def compose_good(self, overrides: Sequence[str]) -> tuple[DictConfig | None, list[str]]:
        """The composition of what is right in `overrides`, and a complaint for each of the others."""
        try:
            return self.compose(overrides), []
        except UNREADABLE as error:
            failure = error
        complaints: dict[str, str] = {}  # by override
        groups = [override for override in overrides if self.is_group(override)]
        for override in sorted(overrides, key=lambda override: override not in groups):
            # Groups first: the others' options depend on them.
            chosen = [] if override in groups else [group for group in groups if group not in complaints]
            try:
                self.compose([*chosen, override])
            except UNREADABLE as error:
                complaints[override] = self._explain(override, error, chosen)
        if not complaints:
            return None, [self._explain("", failure, groups)]
        cfg, more = self.compose_good([override for override in overrides if override not in complaints])
        return cfg, [*(complaints[override] for override in overrides if override in complaints), *more]

    def schema(self, groups: Sequence[str]) -> Schema:
        """The options where these groups are chosen."""
        chosen = dict(override.lstrip("+").split("=", 1) for override in groups)
        return Schema({kind: name for kind, name in chosen.items() if kind in BASES}, self.arguments.plugins)

    def choices(self, group: str) -> list[str]:
        """What a group offers, folders within it included."""
        if group not in self._choices:
            self._choices[group] = self._look_up(group)
        return self._choices[group]

    def _look_up(self, group: str) -> list[str]:
        names = self.loader.get_group_options(group, overrides=self._search)
        for folder in self.loader.list_groups(group):
            names += [f"{folder}/{name}" for name in self.choices(f"{group}/{folder}")]
        return names

    def is_group(self, override: str) -> bool:
        """Whether it chooses of a group; `optim={lr: 1e-4}` sets options."""
        key, _, value = override.lstrip("+").partition("=")
        return bool(key) and not value.startswith("{") and (key in ("recipe", "experiment") or bool(self.choices(key)))

    def _explain(self, override: str, error: Exception, groups: Sequence[str]) -> str:
        return explain(override, error, self.choices, self.is_group, self.schema(groups))


@contextmanager
def composer(arguments: Arguments) -> Iterator[Composer]:
    """A `Composer` for these arguments.

    Raises:
        LptError: a file that `plugins=` names cannot be used.
    """
    folder = Path(arguments["config_path"] or schema.CONF_DIR).expanduser().absolute()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), job_name="train", version_base="1.3"):
            offer_choices(arguments.plugins)  # after Hydra has imported its plugins, which offer what is built in
            yield Composer(arguments, GlobalHydra.instance().config_loader())
    finally:
        GlobalHydra.instance().clear()


def compose_points(points: Iterable[Sequence[str]], flags: Sequence[str] = ()) -> list[DictConfig]:
    """What `train.py <flags>` would run with each of these lists of overrides.

    Raises:
        ConfigError: one of them cannot be composed.
    """
    points = list(points)
    plugins = dict.fromkeys(text for overrides in points for text in overrides if text.startswith("plugins="))
    with composer(read_arguments([*flags, *plugins])) as hydra:
        composed = [hydra.compose_good(list(overrides)) for overrides in points]
    complaints = dict.fromkeys(text for _, texts in composed for text in texts)
    if complaints:
        raise ConfigError(complaints)
    return [plain_config(cfg) for cfg, _ in composed if cfg is not None]


def plain_config(cfg: DictConfig) -> DictConfig:
    """A composition without what Hydra has it for."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg
