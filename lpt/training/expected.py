"""What the README's first run scores, so that whoever runs it can tell whether all is well."""

from dataclasses import replace

from lpt.config.schema import Config, LptConfig, OptimConfig, TrainerConfig

CHOSEN = ("film_reviews", "smollm2-135m", "lpt", "npg", "label_words")
# Lowest and highest test accuracy that was measured (experiments/README.md#the-first-run).
MEASURED = (0.78, 0.82)


def expected_accuracy(config: Config) -> tuple[float, float] | None:
    """Lowest and highest test accuracy over seeds and machines, of the first run; None of any other."""
    groups = (config.task, config.backbone, config.method, config.generator, config.head)
    few, trainer, usual = config.fewshot, config.trainer, TrainerConfig()
    alike = (
        tuple(group.name for group in groups) == CHOSEN
        and config.task.template.decoder == "{a} It was"
        and config.task.label_words == {"rotten": "terrible", "fresh": "great"}
        and (few.protocol, few.k, few.k_dev, few.folds) == ("total", 400, 200, None)
        and config.optim == replace(OptimConfig(), gradient_accumulation=config.optim.gradient_accumulation)
        and config.lpt == replace(LptConfig(), layer=config.lpt.layer, read_only=config.lpt.read_only)
        and config.lpt.read_only is not False
        and config.lpt.layer in (None, 16)
        and not config.generator.normalize
        and config.generator.init == "default"
        and all(getattr(trainer, name) == getattr(usual, name) for name in ("max_epochs", "min_steps", "max_steps"))
    )
    return MEASURED if alike else None
