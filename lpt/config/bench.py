"""The configurations that `lpt bench` measures: one for each candidate, number format and varied value."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.config.candidates import STOCK, method_of
from lpt.config.declarations import declared
from lpt.config.explain import describe
from lpt.config.fields import options_class
from lpt.config.resolve import resolve
from lpt.config.schema import Config, HeadConfig, MethodConfig
from lpt.errors import ConfigError

OUR_OPTIONS = ("lpt", "generator", "head", "method")  # groups that stock baselines do not read


@dataclass(frozen=True)
class Measurement:
    """One measurement of a bench."""

    candidate: str
    value: Any
    # Value of the option that `bench.vary` names; None for a stock baseline that does not depend on it.
    config: Config


def measurements(cfg: DictConfig) -> list[Measurement]:
    """The measurements that a composition asks for, in order.

    A stock baseline is measured once where the varied option is one that it does not read.

    Raises:
        ConfigError: a value of `bench.values` that the option cannot have.
    """
    config = resolve(cfg)
    bench = config.bench
    varied = _varied(cfg, config)
    ours_alone = bench.vary is not None and bench.vary.partition(".")[0] in OUR_OPTIONS
    methods = declared(tuple(config.plugins))["method"]

    def takes_layer(method: MethodConfig) -> bool:
        return "layer" in methods[method.name].parameters

    found = []
    for precision in bench.precisions:
        for candidate in bench.methods:
            for value, point in [(None, config)] if ours_alone and candidate in STOCK else varied:
                trainer = dataclasses.replace(point.trainer, precision=precision)
                method = _method(candidate, point)
                # A probe trains its head alone.
                head = HeadConfig("linear") if method.name == "linear_probe" else point.head
                lpt = point.lpt if takes_layer(method) else dataclasses.replace(point.lpt, layer=None)
                own = dataclasses.replace(point, trainer=trainer, method=method, head=head, lpt=lpt)
                found.append(Measurement(candidate, value, own))
    return found


def _varied(cfg: DictConfig, config: Config) -> list[tuple[Any, Config]]:
    """Each value of the varied option with its configuration; the configuration alone where nothing varies."""
    option, complaints = config.bench.vary, []
    if option is None:
        return [(None, config)]
    varied = []
    for value in config.bench.values:
        changed = cfg.copy()
        try:
            OmegaConf.update(changed, option, value)
            varied.append((value, resolve(changed)))
        except ConfigError as error:
            complaints += [f"bench.values: {complaint}" for complaint in error.complaints]
        except OmegaConfBaseException as error:
            complaints.append(f"bench.values: {describe(error, f'{option}={value}')}")
    if complaints:
        raise ConfigError(complaints)
    return varied


def _method(candidate: str, config: Config) -> MethodConfig:
    """The settings of a candidate's method: those given for the method that was chosen, else the method's defaults."""
    name = method_of(candidate)
    if candidate in STOCK or name == config.method.name:
        return config.method
    made = options_class("method", name, tuple(config.plugins))()
    assert isinstance(made, MethodConfig)
    return made


def config_to_json(config: Config) -> str:
    """A configuration for another process to read with `config_from_json`."""
    return json.dumps(dataclasses.asdict(config))


def config_from_json(text: str) -> Config:
    """The configuration that `config_to_json` has written.

    Raises:
        ConfigError: it is not a valid configuration.
    """
    return resolve(OmegaConf.create(json.loads(text)))
