"""`lpt bench`: what training steps cost."""

import argparse

from lpt.cli.arguments import Commands

DEFAULT = "experiment=bench_roberta_base"


def add(commands: Commands) -> None:
    """Add the command."""
    bench = commands.add_parser(
        "bench",
        help="measure what training steps cost",
        description="Measure time, memory and arithmetic of training steps on random rows, with each method in a "
        "process of its own.",
        epilog=f"The options are those of training (lpt train --help all), bench.* above all. Without experiment=, it "
        f"is {DEFAULT}.",
    )
    bench.add_argument(
        "overrides", nargs="*", metavar="option=value", help="such as experiment=bench_smollm2 lpt.layer=8"
    )
    bench.set_defaults(command=_bench)


def _bench(arguments: argparse.Namespace) -> None:
    from lpt.bench.run import run_bench
    from lpt.config.bench import measurements
    from lpt.config.command_line import compose_config
    from lpt.config.resolve import resolve

    overrides = arguments.overrides
    if not any(override.startswith("experiment=") for override in overrides):
        overrides = [DEFAULT, *overrides]
    cfg = compose_config(overrides)
    run_bench(resolve(cfg), measurements(cfg))
