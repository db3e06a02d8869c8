"""What registers itself, built-in or in a file of the user's own."""

import pytest
import torch
from experiment import make_experiment
from tiny import HIDDEN, tiny_model

from lpt import LatePromptClassifier
from lpt.config.compose import compose_points
from lpt.errors import ConfigError, LptError
from lpt.late_prompt import LateMethod, LatePromptModel
from lpt.registry import GENERATORS, HEADS, METHODS, load_plugins

PLUGIN = '''
from typing import Annotated

import torch
from torch import nn

from lpt.generators import PromptGenerator
from lpt.heads import LinearHead
from lpt.late_prompt import LateMethod
from lpt.ranges import at_least
from lpt.registry import register_generator, register_head, register_method


@register_method("every_nth_norm", settings={"optim.lr": 1e-2})
class EveryNthNorm(LateMethod):
    """Every n-th norm of layers k..L.

    Args:
        n: distance between two norms that are trained.
    """

    def __init__(self, model, layer=None, n: Annotated[int, at_least(1)] = 1):
        super().__init__(model, layer)
        modules = [m for layer in self.backbone.upper_layers for m in layer.modules() if isinstance(m, nn.LayerNorm)]
        for norm in modules[::n]:
            norm.requires_grad_(True)


@register_generator("shifted")
class Shifted(PromptGenerator):
    """One learned prompt and a constant."""

    def __init__(self, hidden_size, prompt_length, bottleneck, dropout=0.0, shift: float = 0.5):
        super().__init__(hidden_size, prompt_length, bottleneck, dropout)
        self.shift, self.prompt = shift, nn.Parameter(torch.zeros(prompt_length, hidden_size))

    def write(self, h_BTH, summary_index_B, pooling_mask_BT):
        return (self.prompt + self.shift).expand(len(h_BTH), -1, -1)


@register_head("sharp")
class Sharp(LinearHead):
    """A linear head whose scores are multiplied."""

    def __init__(self, finished_size, num_classes, factor: float = 2.0):
        super().__init__(finished_size, num_classes)
        self.factor = factor

    def scores(self, z_BH, backbone):
        return self.factor * super().scores(z_BH, backbone)
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(PLUGIN)
    before = [dict(registry) for registry in (METHODS, GENERATORS, HEADS)]
    load_plugins([path])
    yield path
    for registry, classes in zip((METHODS, GENERATORS, HEADS), before, strict=True):
        registry._classes = classes  # other tests count what is built in


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("experiment"))


def test_each_kind_has_the_papers_names():
    assert {"npg", "appg", "mppg", "none"} <= set(GENERATORS)
    assert {"lpt", "lora", "adapter", "adapterdrop", "bitfit", "full", "prompt_tuning", "p_tuning_v2"} <= set(METHODS)
    assert {"label_words", "vocabulary", "continuation", "linear"} <= set(HEADS)


def test_a_file_of_the_users_own_is_imported_once(plugin):
    first = METHODS["every_nth_norm"]
    load_plugins([plugin, str(plugin)])
    assert METHODS["every_nth_norm"] is first
    assert issubclass(first, LateMethod)


def test_a_generator_of_the_users_own_has_its_option(plugin):
    model = LatePromptModel(tiny_model("gpt2"), generator="shifted", generator_options={"shift": 0.25}).eval()
    prompt = model.generator(torch.zeros(2, 3, HIDDEN), torch.tensor([2, 2]), torch.ones(2, 3, dtype=torch.bool))
    assert (prompt == 0.25).all()


def test_a_method_generator_and_head_of_the_users_own_train_save_and_load(experiment, plugin):
    own = [f"plugins=['{plugin}']", "trainer.max_steps=2", "logger=none", "trainer.eval_batch_size=64"]
    norms = experiment.run("norms", *own, "method=every_nth_norm", "method.n=3", "head=sharp", "head.factor=3")
    assert norms["settings"] == {"layer": 1, "n": 3}
    folder = experiment.run_dir("norms") / "adapter"
    classifier = LatePromptClassifier.from_pretrained(folder, "cpu", "32")
    assert (classifier.head.factor, classifier.config.head_settings) == (3.0, {"factor": 3.0})
    trained = [name for name, p in classifier.named_parameters() if p.requires_grad]
    assert len([name for name in trained if "ln_" in name]) == 2 * len([0, 3, 6])  # weight and bias of every third of 8
    shifted = experiment.run("shifted", *own, "generator=shifted", "generator.shift=0.1")
    assert shifted["settings"]["generator_options"] == {"shift": 0.1}
    assert shifted["trainable_parameters"] == shifted["lpt"]["prompt_length"] * HIDDEN


def test_a_plugin_is_offered_to_the_command_that_names_it_and_to_no_other(plugin):
    own = f"plugins=['{plugin}']"
    (cfg,) = compose_points([[own, "generator=shifted"]])
    assert cfg.generator.shift == 0.5
    with pytest.raises(ConfigError, match="there is no generator 'shifted'"):
        compose_points([["generator=shifted"]])
    (again,) = compose_points([[own, "generator=shifted"]])
    assert again.generator.shift == 0.5


def test_a_name_that_is_taken_or_a_file_that_fails_is_refused(plugin, tmp_path):
    with pytest.raises(LptError, match="generator 'npg' is registered twice"):
        GENERATORS.register("npg")(type("Other", (), {}))
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name")
    with pytest.raises(LptError, match=r"broken\.py: the file cannot be imported: ModuleNotFoundError"):
        load_plugins([broken])
    with pytest.raises(LptError, match=r"plugins=.*missing\.py: there is no such Python file"):
        load_plugins([tmp_path / "missing.py"])
