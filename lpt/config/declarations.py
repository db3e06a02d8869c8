"""What methods, generators and heads declare of themselves, read from their source.

Source is read instead of imported, so that `--help` and bad options wait neither for torch nor for a user's imports. A
class is found by its decorator (`lpt.registry`); its options are the parameters of its constructor, with type, allowed
values and default from the signature and the meaning from the docstring's `Args:`.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from lpt.errors import LptError
from lpt.ranges import Allowed, above, allowed_by, at_least, fraction, one_of, plain_type
from lpt.registry import KINDS, SUPPLIED

PACKAGE = Path(__file__).parents[1]
OWN_FILES = ("late_prompt.py", "methods/*.py", "generators/*.py", "heads.py")
DECORATORS = {f"register_{kind}": kind for kind in KINDS}
# What an annotation may be made of.
NAMES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (int, float, bool, str, list, dict)},
    **{"None": None, "Any": Any, "Annotated": Annotated, "Literal": Literal},
    **{maker.__name__: maker for maker in (at_least, above, fraction, one_of)},
}
TYPES = (int, float, bool, str)


@dataclass(frozen=True)
class Option:
    """An option that a class declares.

    Attributes:
        type: as the configuration knows it.
        default: None where the class leaves it to something else.
        allowed: beyond the type; None where that is all.
        meaning: for people.
    """

    name: str
    type: Any
    default: Any
    allowed: Allowed | None
    meaning: str


@dataclass(frozen=True)
class Declaration:
    """A registered class.

    Attributes:
        kind: method, generator or head.
        parameters: names of all that its constructor takes, those that the framework supplies too.
        options: the others.
        settings: values of other options that come with it; a key without a dot chooses of a group.
        traits: its class attributes that are literals, inherited ones too.
        summary: the first sentence of its docstring.
    """

    kind: str
    name: str
    parameters: tuple[str, ...]
    options: tuple[Option, ...]
    settings: Mapping[str, Any]
    traits: Mapping[str, Any]
    summary: str

    @property
    def has_late_prompt(self) -> bool:
        """Whether a method has a generator of the user's choice, and so takes `lpt.*` and `generator.*`."""
        return self.kind == "method" and "generator" in self.parameters


@dataclass(frozen=True)
class Declarations:
    """All that is declared, `[kind][name]`."""

    of: dict[str, dict[str, Declaration]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def __getitem__(self, kind: str) -> dict[str, Declaration]:
        return self.of[kind]

    def all(self) -> Iterator[Declaration]:
        """Every declaration, kind by kind."""
        for found in self.of.values():
            yield from found.values()


@cache
def declared(plugins: tuple[str, ...] = ()) -> Declarations:
    """What the project and these files of the user's declare.

    Raises:
        LptError: a file is missing or not Python, or declares what the command line cannot take.
    """
    own = [path for pattern in OWN_FILES for path in sorted(PACKAGE.glob(pattern))]
    sources = [_Source(path) for path in [*own, *(_plugin(given) for given in plugins)]]
    classes = {node.name: (node, source) for source in sources for node in source.classes}
    found = Declarations()
    for source in sources:
        for node in source.classes:
            for kind, name, settings in source.registrations(node):
                if name in found[kind]:
                    raise LptError(f"{source.path}: {kind} {name!r} is registered twice; choose another name")
                found[kind][name] = _declaration(kind, name, settings, _ancestors(node, classes), source)
    return found


def _plugin(given: str) -> Path:
    path = Path(given).expanduser()
    if not path.is_file():
        raise LptError(f"plugins={given}: there is no such file; give the path of a Python file")
    return path


class _Source:
    """A file of Python: its classes, and what its names stand for."""

    def __init__(self, path: Path):
        self.path = path
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        except (SyntaxError, UnicodeDecodeError) as error:
            raise LptError(f"{path} is not Python that can be read: {error}") from None
        self.classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        self._names = dict(NAMES)
        for node in tree.body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                try:
                    self._names[node.targets[0].id] = self.value(node.value)
                except ValueError:
                    continue  # no alias of a type, and no constant

    def value(self, node: ast.expr) -> Any:
        """What an annotation or a literal stands for.

        Raises:
            ValueError: it is made of more than types, ranges and literals.
        """
        allowed = (
            ast.Name,
            ast.Constant,
            ast.Subscript,
            ast.Tuple,
            ast.List,
            ast.Dict,
            ast.Call,
            ast.BinOp,
            ast.UnaryOp,
        )
        for part in ast.walk(node):
            if isinstance(part, ast.expr) and not isinstance(part, allowed):
                raise ValueError(ast.unparse(node))
            if isinstance(part, ast.Name) and part.id not in self._names:
                raise ValueError(f"{part.id} in {ast.unparse(node)}")
        expression = compile(ast.Expression(node), str(self.path), "eval")
        try:
            return eval(expression, {"__builtins__": {}}, self._names)  # of names that were just checked
        except Exception as error:
            raise ValueError(f"{ast.unparse(node)}: {error}") from None

    def registrations(self, node: ast.ClassDef) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(kind, name, settings) of each decorator that registers the class."""
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else None
            kind = DECORATORS.get(called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""))
            if kind is None or not isinstance(decorator, ast.Call):
                continue
            try:
                (name,) = (self.value(argument) for argument in decorator.args)
                settings = {str(word.arg): self.value(word.value) for word in decorator.keywords}.get("settings", {})
            except ValueError as error:
                raise LptError(
                    f"{self.path}, line {decorator.lineno}: register_{kind} takes a name and settings, both written "
                    f"out, not computed ({error})"
                ) from None
            yield kind, str(name), settings


def _ancestors(
    node: ast.ClassDef, classes: Mapping[str, tuple[ast.ClassDef, _Source]]
) -> list[tuple[ast.ClassDef, _Source]]:
    """The class and those that it is derived from, nearest first, as far as their source is known."""
    found = [classes[node.name]]
    for base in node.bases:
        name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", None)
        if isinstance(name, str) and name in classes and name != node.name:
            found += _ancestors(classes[name][0], classes)
    return found


def _declaration(
    kind: str, name: str, settings: dict[str, Any], ancestors: Sequence[tuple[ast.ClassDef, _Source]], source: _Source
) -> Declaration:
    doc = inspect.cleandoc(ast.get_docstring(ancestors[0][0]) or "")
    traits: dict[str, Any] = {}
    for node, written_in in reversed(ancestors):
        traits |= _traits(node, written_in)
    parameters = list(_all_parameters(ancestors))
    meanings: dict[str, str] = {}
    for node, _ in reversed(ancestors):
        meanings |= _meanings(ast.get_docstring(node) or "")
    late_prompt = kind == "method" and any(parameter.arg == "generator" for parameter, *_ in parameters)
    supplied = {*SUPPLIED[kind], *(LATE_PROMPT if late_prompt else ())}
    options = tuple(
        _option(parameter, default, written_in, meanings.get(parameter.arg, ""), f"{kind} {name!r}")
        for parameter, default, written_in in parameters
        if parameter.arg not in supplied
    )
    names = tuple(parameter.arg for parameter, *_ in parameters)
    return Declaration(kind, name, names, options, settings, traits, doc.partition("\n\n")[0].replace("\n", " "))


# Parameters of a method that writes a late prompt, which `lpt.*` and `generator.*` supply.
LATE_PROMPT = ("prompt_length", "generator", "bottleneck", "normalize", "dropout", "generator_options")


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    functions = (item for item in node.body if isinstance(item, ast.FunctionDef))
    return next((function for function in functions if function.name == "__init__"), None)


def _all_parameters(
    ancestors: Sequence[tuple[ast.ClassDef, _Source]],
) -> Iterator[tuple[ast.arg, ast.expr | None, _Source]]:
    """What the constructor takes: where it ends in `**`, what that of the class above takes too."""
    known = set()
    for node, source in ancestors:
        if (function := _constructor(node)) is None:
            continue
        for parameter, default in _parameters(function):
            if parameter.arg not in known:
                known.add(parameter.arg)
                yield parameter, default, source
        if function.args.kwarg is None:
            return


def _parameters(function: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Every parameter but self, and its default."""
    given = [*function.args.posonlyargs, *function.args.args]
    missing: list[ast.expr | None] = [None] * (len(given) - len(function.args.defaults))
    yield from list(zip(given, [*missing, *function.args.defaults], strict=True))[1:]
    yield from zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)


def _option(parameter: ast.arg, default: ast.expr | None, source: _Source, meaning: str, owner: str) -> Option:
    where = f"{source.path}, line {parameter.lineno}: {owner}"
    try:
        if parameter.annotation is None:
            raise ValueError("it has no type")
        hint = source.value(parameter.annotation)
        kind = plain_type(hint)
        if not _is_typable(kind):
            raise ValueError(
                f"{ast.unparse(parameter.annotation)} is not one of int, float, bool, str, or a list of one"
            )
    except (ValueError, TypeError) as error:
        raise LptError(f"{where}: the option {parameter.arg!r} needs a type that can be typed: {error}") from None
    if default is None:
        raise LptError(f"{where}: the option {parameter.arg!r} needs a default")
    try:
        value = source.value(default)
    except ValueError as error:
        raise LptError(f"{where}: the default of {parameter.arg!r} must be written out ({error})") from None
    return Option(parameter.arg, kind, value, allowed_by(hint), meaning)


def _is_typable(kind: Any) -> bool:
    plain = {*TYPES, *(optional | None for optional in TYPES), *(list[item] for item in TYPES)}  # type: ignore[valid-type]
    return kind in plain


def _traits(node: ast.ClassDef, source: _Source) -> Iterable[tuple[str, Any]]:
    found = {}
    for item in node.body:
        if isinstance(item, ast.Assign):
            targets, value = item.targets, item.value
        elif isinstance(item, ast.AnnAssign) and item.value is not None:
            targets, value = [item.target], item.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = source.value(value)
                except ValueError:
                    continue  # computed, and so no trait
    return found.items()


def _meanings(doc: str) -> dict[str, str]:
    """What the `Args:` of a docstring say, by parameter."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(doc) + "\n", re.MULTILINE | re.DOTALL)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section[1], re.MULTILINE | re.DOTALL)
    return {name: _sentence(" ".join(text.split())) for name, text in entries}


def _sentence(text: str) -> str:
    plain = text.replace("`", "")
    symbol = re.match(r"[a-zA-Z], ", plain)  # "r, the rank" begins with the paper's symbol
    return plain if symbol else plain[:1].upper() + plain[1:]
