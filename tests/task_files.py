"""The tasks of `conf/task`, and the real data of some of them."""

import pytest
from omegaconf import OmegaConf
from places import GLUE

from lpt.config.schema import CONF_DIR
from lpt.data.tasks import Task

FILES = {path.stem: path for path in sorted((CONF_DIR / "task").glob("*.yaml"))}
REAL_DATA = pytest.mark.skipif(not GLUE.is_dir(), reason="needs the GLUE folders in ../shared/data/glue")


def load_task(name: str, **changes) -> Task:
    """A task of `conf/task`, as the schema reads it."""
    task = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Task), OmegaConf.load(FILES[name]), changes))
    assert isinstance(task, Task)
    return task
