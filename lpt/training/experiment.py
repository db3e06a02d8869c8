"""From a configuration to what is fixed before the first step: backbone, rows, classifier, choices."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lpt.adapter import AdapterConfig
from lpt.backbones.families import max_length, num_layers
from lpt.backbones.layers import resolve_layer
from lpt.backbones.placement import Placement
from lpt.backbones.pretrained import Pretrained, find_pretrained, found_from_anywhere
from lpt.classifier import LatePromptClassifier
from lpt.config.schema import Config
from lpt.data.batches import EncodedSplit, EvaluationBatches
from lpt.data.reading import Reading
from lpt.data.splits import Splits, read_rows
from lpt.data.templates import check_template
from lpt.errors import LptError
from lpt.hardware import check_compiler, choose_gradient_accumulation
from lpt.heads import check_head
from lpt.methods import chosen_settings, only_in_training
from lpt.registry import METHODS, load_plugins
from lpt.training import messages
from lpt.training.initialization import start_prompt
from lpt.training.placement import place
from lpt.training.plan import TrainingPlan, plan_training


@dataclass(frozen=True)
class Experiment:
    """Everything about a run that is fixed before the first step.

    Attributes:
        rows: which rows train, validate and test.
        splits: the same rows, tokenized.
        attention: how the backbone computes it: `eager`, `sdpa` or `lean`.
    """

    config: Config
    placement: Placement
    pretrained: Pretrained
    rows: Splits
    classifier: LatePromptClassifier
    splits: dict[str, EncodedSplit]
    attention: str
    plan: TrainingPlan

    @property
    def trains(self) -> bool:
        """Whether there is anything to train, and a step to train it in."""
        return self.plan.total_steps > 0

    @cached_property
    def trainable_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.classifier.parameters() if p.requires_grad)

    @cached_property
    def backbone_parameters(self) -> int:
        """How many numbers the backbone has."""
        return sum(p.numel() for p in self.classifier.method.backbone.parameters())


def prepare(config: Config, rows: Splits | None = None) -> Experiment:
    """Build what the configuration describes, and say what was chosen.

    Args:
        config: the configuration.
        rows: those of `read_rows`, where they have been read already.

    Raises:
        LptError: whatever does not fit together: machine, backbone, task, rows, method.
    """
    load_plugins(config.plugins)
    placement = place(config)
    pretrained = find_backbone(config)
    check_fit(config, pretrained)
    if rows is None:
        rows = read_rows(config.task, config.fewshot)
    messages.say_placement(config, placement)
    messages.say_rows(config, rows)
    classifier = build_classifier(config, pretrained, placement)
    splits = encode(config, rows, classifier)
    messages.warn_about_rows(rows, splits, config.task.classes, classifier.config.max_length)
    length = mean_length(splits["train"])
    attention = set_attention(config, placement, classifier, length)
    trainable = any(p.requires_grad for p in classifier.parameters())
    plan = plan_training(config, len(splits["train"]), micro_batches(config, placement, classifier, length), trainable)
    messages.say_choices(config, attention, plan, length)
    make_ready(config, classifier, splits["train"])
    return Experiment(config, placement, pretrained, rows, classifier, splits, attention, plan)


def find_backbone(config: Config) -> Pretrained:
    """The backbone of this configuration, found.

    Raises:
        LptError: as for `find_pretrained`; a run that is resumed may find it elsewhere.
    """
    try:
        return find_pretrained(config.backbone.path, config.backbone.revision)
    except LptError as error:
        if config.resume is None:
            raise
        raise LptError(f"{error}. If it is elsewhere now, resume with backbone.path=<folder or hub id>") from error


def check_fit(config: Config, pretrained: Pretrained) -> None:
    """Complain about what does not fit the backbone before weights and rows are read.

    Raises:
        LptError: a layer that the backbone does not have, or a template or head for another kind of backbone.
    """
    layers = num_layers(pretrained.config)
    default = METHODS[config.method.name].default_layer(layers)
    resolve_layer(config.lpt.layer, default, layers, config.backbone.name)
    causal = pretrained.family.causal
    check_template(_template(config, causal), causal)
    check_head(config.head.name, causal)


def build_classifier(config: Config, pretrained: Pretrained, placement: Placement) -> LatePromptClassifier:
    """Load the backbone and put method and head on it; initial values depend on `seed` alone.

    Raises:
        LptError: weights that cannot be loaded, or settings that do not fit them.
    """
    torch.manual_seed(config.seed)
    settings = chosen_settings(config, pretrained.family)
    return LatePromptClassifier(
        adapter_config(config, pretrained),
        pretrained,
        placement.dtype,
        training={name: settings[name] for name in only_in_training(config.method.name) if name in settings},
        quantization=config.backbone.quantization,
        accelerator=placement.accelerator,
    )


def adapter_config(config: Config, pretrained: Pretrained) -> AdapterConfig:
    """What the classifier of this configuration is, for building it now and for loading it again."""
    settings = chosen_settings(config, pretrained.family)
    return AdapterConfig(
        task=config.task.name,
        backbone=found_from_anywhere(config.backbone.path),
        revision=pretrained.commit or config.backbone.revision,
        method=config.method.name,
        settings={name: value for name, value in settings.items() if name not in only_in_training(config.method.name)},
        head=config.head.name,
        head_settings=config.head.own(),
        labels=config.task.labels,
        label_words=config.task.label_words or {},
        template=_template(config, pretrained.family.causal),
        answer=config.task.template.answer,
        space=config.task.template.space,
        max_length=min(config.task.max_length, max_length(pretrained.config)),
        value_range=config.task.value_range,
        reading=Reading.of(config.task),
    )


def _template(config: Config, causal: bool) -> str:
    return config.task.template.decoder if causal else config.task.template.encoder


def encode(config: Config, rows: Splits, classifier: LatePromptClassifier) -> dict[str, EncodedSplit]:
    """Split -> its rows, tokenized for this classifier."""
    return {
        name: EncodedSplit.encode(labeled, classifier.template, config.task.value_range)
        for name, labeled in rows.by_name().items()
    }


def mean_length(split: EncodedSplit) -> float:
    """Mean number of tokens of a row, prompt not counted."""
    return float(np.mean(split.lengths))


def set_attention(config: Config, placement: Placement, classifier: LatePromptClassifier, length: float) -> str:
    """Choose how the backbone computes attention for texts of `length` tokens, and have it do so.

    Raises:
        LptError: an attention that the backbone's family does not have.
    """
    backbone = classifier.method.backbone
    attention = placement.choose_attention(backbone, length, config.backbone.attention, training=True)
    backbone.use_attention(attention)
    return attention


def micro_batches(config: Config, placement: Placement, classifier: LatePromptClassifier, length: float) -> int:
    """Micro-batches per optimizer step for texts of `length` tokens."""
    optim = config.optim
    rows_per_device = optim.batch_size // config.trainer.processes
    tokens = classifier.method.active_tokens(length)
    return choose_gradient_accumulation(optim.gradient_accumulation, placement.accelerator, rows_per_device, tokens)


def make_ready(config: Config, classifier: LatePromptClassifier, train: EncodedSplit) -> None:
    """Do what the training texts are needed for before training, and compile the layers, each where it is asked for.

    Raises:
        LptError: a start of the prompt that the backbone does not have, or no compiler.
    """
    start_prompt(classifier, config.generator.init, train, config.seed)
    if config.head.calibrate:
        batches = EvaluationBatches(train.lengths, config.trainer.eval_batch_size)
        classifier.calibrate(train.collate(items, classifier.pad_id) for items in batches)
    if config.trainer.compile:
        check_compiler()
        backbone = classifier.method.backbone
        backbone.compile(dynamic=True)
        messages.say_compiling(backbone.layer, backbone.num_layers)
