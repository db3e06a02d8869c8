"""What the config groups offer, read from conf/ and from what is registered: so that a new one changes no test."""

from lpt.config.declarations import declared
from lpt.config.schema import CONF_DIR
from lpt.registry import KINDS


def choices(group: str, *more: str) -> list[str]:
    """What a group offers besides `more`: its files, then those of folders within it, or what is registered."""
    folder = CONF_DIR / group
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    if group in KINDS:
        names += declared()[group]
    return sorted([*names, *more], key=lambda name: (name.count("/"), name))


def one_of(group: str) -> str:
    """How a complaint lists them."""
    return f"choose one of {', '.join(choices(group))}"
