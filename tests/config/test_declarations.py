"""What the source of a class tells of its options, without being run."""

import inspect

import pytest

from lpt.config.declarations import declared
from lpt.errors import LptError
from lpt.methods import method_settings
from lpt.registry import KINDS, SUPPLIED, Registry

START = (
    "from typing import Annotated, Literal\nfrom lpt.ranges import at_least\nfrom lpt.registry import register_method\n"
)


@pytest.fixture
def plugin(tmp_path):
    """Writes a file of the user's own and returns its path."""
    count = iter(range(100))

    def write(body: str) -> str:
        path = tmp_path / f"mine_{next(count)}.py"
        path.write_text(START + "raise SystemExit('read, not run')\n" + body)
        return str(path)

    return write


def parameters_of(cls):
    """Those of the constructor; where it ends in `**`, those of the class above too."""
    own = dict(inspect.signature(cls).parameters)
    rest = [name for name, parameter in own.items() if parameter.kind is parameter.VAR_KEYWORD]
    for name in rest:
        del own[name]
    return own | {n: p for n, p in parameters_of(cls.__base__).items() if n not in own} if rest else own


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_from_the_source_is_what_the_classes_have(kind):
    from lpt import registry

    classes: Registry = {"method": registry.METHODS, "generator": registry.GENERATORS, "head": registry.HEADS}[kind]
    found = declared()[kind]
    assert set(found) == set(classes)
    for name, cls in classes.items():
        parameters = parameters_of(cls)
        assert found[name].parameters == tuple(parameters)
        if kind == "method":
            assert ["model", *method_settings(name)] == list(parameters)
            assert {"read_only", "backbone_dropout"} < set(parameters)
        for option in found[name].options:
            assert option.default == parameters[option.name].default
            assert option.name not in SUPPLIED[kind]
            assert option.meaning, f"{kind} {name}: {option.name} has no meaning in the docstring's Args"
        for trait in ("late", "trains_backbone", "only_in_training", "starts_from", "decoders_only", "trains"):
            if hasattr(cls, trait):
                assert found[name].traits[trait] == getattr(cls, trait)
        assert found[name].summary == inspect.cleandoc(cls.__doc__).partition("\n\n")[0].replace("\n", " ")


def test_a_file_of_the_users_own_declares_options_with_types_ranges_defaults_and_meanings(plugin):
    path = plugin(
        "Size = Annotated[int, at_least(2)]\n"
        "class Base:\n"
        '    """Base.\n\n    Args:\n        size: how large it is,\n            in rows.\n'
        '        way: `up` or `down`.\n    """\n'
        "    late = True\n"
        "    def __init__(self, model, layer=None, size: Size = 4, way: Literal['up', 'down'] = 'up',\n"
        "                 rates: list[float] = (0.1, 0.2), off: bool = False): ...\n"
        "@register_method('mine', settings={'optim.lr': 1e-3, 'head': 'linear'})\n"
        "class Mine(Base):\n"
        '    """Mine."""\n'
    )
    mine = declared((path,))["method"]["mine"]
    assert [(o.name, o.type, o.default, str(o.allowed), o.meaning) for o in mine.options] == [
        ("size", int, 4, "at least 2", "How large it is, in rows."),
        ("way", str, "up", "one of up, down", "Up or down."),
        ("rates", list[float], (0.1, 0.2), "None", ""),
        ("off", bool, False, "None", ""),
    ]
    assert (mine.settings, mine.traits["late"], mine.summary) == ({"optim.lr": 1e-3, "head": "linear"}, True, "Mine.")
    assert "mine" not in declared()["method"]


def test_a_constructor_that_ends_in_stars_has_the_options_of_the_class_above(plugin):
    path = plugin(
        "@register_method('mine')\n"
        "class Mine(Lora):\n"
        '    """Mine."""\n'
        "    def __init__(self, model, layer=None, rank: int = 2, size: int = 4, **lora): ...\n"
        "@register_method('closed')\n"
        "class Closed(Mine):\n"
        '    """Closed."""\n'
        "    def __init__(self, model, size: int = 5): ...\n"
    )
    mine, closed = (declared((path,))["method"][name] for name in ("mine", "closed"))
    late = ("read_only", "backbone_dropout", "trunk_dropout")
    assert mine.parameters == ("model", "layer", "rank", "size", "alpha", "targets", "dropout", *late)
    assert [(option.name, option.default) for option in mine.options] == [
        ("rank", 2),
        ("size", 4),
        ("alpha", 16),
        ("targets", "attention"),
        ("dropout", 0.0),
    ]
    assert mine.options[0].meaning == "r, the rank of the updates."
    assert closed.parameters == ("model", "size")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("@register_method('x')\nclass A:\n    def __init__(self, model, n=1): ...\n",
         "the option 'n' needs a type that can be typed: it has no type"),
        ("@register_method('x')\nclass A:\n    def __init__(self, model, n: Tensor = 1): ...\n",
         "the option 'n' needs a type that can be typed: Tensor in Tensor"),
        ("@register_method('x')\nclass A:\n    def __init__(self, model, n: dict = {}): ...\n",
         "the option 'n' needs a type that can be typed: dict is not one of int, float, bool, str, or a list of one"),
        ("@register_method('x')\nclass A:\n    def __init__(self, model, n: int): ...\n",
         "the option 'n' needs a default"),
        ("@register_method('x')\nclass A:\n    def __init__(self, model, n: int = len([1])): ...\n",
         "the default of 'n' must be written out"),
        ("name = f()\n@register_method(name)\nclass A: ...\n",
         "register_method takes a name and settings, both written out, not computed (name in name)"),
        ("@register_method('lora')\nclass A: ...\n", "method 'lora' is registered twice; choose another name"),
        ("class A(: ...\n", "is not Python that can be read"),
    ],
)  # fmt: skip
def test_what_the_command_line_cannot_take_is_told_with_its_place(plugin, body, problem):
    path = plugin(body)
    with pytest.raises(LptError) as error:
        declared((path,))
    assert path in str(error.value)
    assert problem in str(error.value)


def test_a_file_that_is_missing_is_named():
    with pytest.raises(LptError, match=r"plugins=nowhere\.py: there is no such file; give the path of a Python file"):
        declared(("nowhere.py",))
