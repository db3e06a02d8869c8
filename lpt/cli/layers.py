"""`lpt layers`: which layer's states tell the classes apart."""

import argparse

from lpt.cli.arguments import Commands, count

PROBE = ("method=state_probe", "logger=none")


def add(commands: Commands) -> None:
    """Add the command."""
    layers = commands.add_parser(
        "layers",
        help="see which layer's states tell the classes apart",
        description="Read the training texts once by the frozen model, and cross-validate a linear classifier on the "
        "states that enter each layer. Nothing is trained by gradient, and nothing is written.",
        epilog="The options are those of training (lpt train --help).",
    )
    layers.add_argument("overrides", nargs="*", metavar="option=value", help="such as task=trec fewshot.k=400")
    layers.add_argument("--folds", type=count, default=5, help="of cross-validation, at least 2 (default: 5)")
    layers.set_defaults(command=_layers)


def _layers(arguments: argparse.Namespace) -> None:
    from lpt.cli.tables import print_table
    from lpt.config.command_line import compose_config
    from lpt.config.resolve import resolve
    from lpt.errors import LptError
    from lpt.report.text_table import TextTable

    if arguments.folds < 2:
        raise LptError(f"--folds {arguments.folds}: cross-validation needs at least 2")
    config = resolve(compose_config([*PROBE, *arguments.overrides]))
    from lpt.training.layer_scores import POOLS, best_of, score_layers

    scores = score_layers(config, arguments.folds)
    best = best_of(scores)
    layers = sorted({score.layer for score in scores})
    by = {(score.layer, score.pool): f"{score.mean:.3f} ± {score.error:.3f}" for score in scores}
    rows = [[str(layer), *(by[layer, pool] for pool in POOLS)] for layer in layers]
    strong = {layers.index(best.layer)}
    print_table(TextTable(["states entering layer", "mean of all tokens", "read-out token"], rows, strong=strong))
    print(
        f"accuracy on {len(best.accuracies)} folds, with its standard error. Best: the {best.pool} at layer "
        f"{best.layer}. To train on it:\n  lpt train {' '.join(arguments.overrides)} method=state_probe "
        f"lpt.layer={best.layer} method.pool={best.pool}"
    )
