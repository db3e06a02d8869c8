"""Methods, generators and heads, each known by the name it is registered under.

    @register_method("norm_tuning")
    class NormTuning(LateMethod): ...

Registering the class is all: its constructor's parameters are its options, on the command line and in `--help`
(`lpt.config.declarations` reads them from the source, so that neither waits for torch). A file of the user's own is
named by `plugins=[my_method.py]`, or imported before a classifier is loaded. A constructor that ends in `**` and hands
that on has the options of the class above too: of a method, `lpt.read_only` and the like.

    @register_method("norm_tuning", settings={"optim.lr": 1e-3})

also brings values of other options, unless they are typed. Class attributes declare the rest; like `settings`, they are
written as literals, since they are read from the source too:

    late            (methods) whether it leaves a trunk below it by default, which can be cached
    trains_backbone (methods) whether the backbone's own weights are trained, which takes float32
    starts_from     (methods, generators) values of `generator.init` that its prompt can start from
    trains          (heads) whether it has parameters of its own, which `head.lr` is for
"""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from lpt.errors import LptError, did_you_mean

KINDS = ("method", "generator", "head")
# Parameters of a constructor that are given by the framework and so are no options of `<kind>.*`.
SUPPLIED = {
    "method": ("model", "layer", "read_only", "backbone_dropout", "trunk_dropout"),
    "generator": ("hidden_size", "prompt_length", "bottleneck", "dropout"),
    "head": ("label_ids", "answers", "num_classes", "finished_size"),
}
HOMES = {"method": "lpt.methods", "generator": "lpt.generators", "head": "lpt.heads"}

C = TypeVar("C", bound=type)


class Registry(Mapping[str, type[Any]]):
    """Name -> class, in the order of registration. The project's own are imported when one is first asked for."""

    def __init__(self, kind: str):
        self.kind = kind
        self._classes: dict[str, type[Any]] = {}

    def register(self, name: str, settings: Mapping[str, Any] | None = None) -> Callable[[C], C]:
        """Return a class decorator.

        Args:
            name: as typed on the command line.
            settings: options of other groups that come with the class; the command line reads them from the source.

        Raises:
            LptError: the name is taken by a class of another file.
        """

        def enter(cls: C) -> C:
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise LptError(f"{self.kind} {name!r} is registered twice: by {_place(taken)} and by {_place(cls)}")
            self._classes[name] = cls
            return cls

        return enter

    def __getitem__(self, name: str) -> type[Any]:
        import_module(HOMES[self.kind])
        if name not in self._classes:
            raise LptError(
                f"{self.kind}={name} is not known; choose one of {', '.join(self)}{did_you_mean(name, self)}; one of "
                "your own needs its file: plugins=[<file.py>], or --plugin <file.py>"
            )
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        import_module(HOMES[self.kind])
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        import_module(HOMES[self.kind])
        return iter(dict(self._classes))

    def __len__(self) -> int:
        return len(list(iter(self)))


METHODS, GENERATORS, HEADS = (Registry(kind) for kind in KINDS)
register_method, register_generator, register_head = METHODS.register, GENERATORS.register, HEADS.register


def load_plugins(files: Iterable[str | Path]) -> None:
    """Import files of the user's own, for what they register; a file that is imported already is left as it is.

    Raises:
        LptError: there is no such file, or it cannot be imported.
    """
    for file in files:
        path = Path(file).expanduser().resolve()
        name = f"lpt_plugin_{path.stem}_{abs(hash(str(path))):x}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise LptError(f"plugins={file}: there is no such Python file; give the path of one")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            if isinstance(error, LptError):
                raise
            raise LptError(f"plugins={file}: the file cannot be imported: {type(error).__name__}: {error}") from error


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
