"""`lpt review`: the mistakes of a finished run, and how far its probabilities can be trusted."""

import argparse
from pathlib import Path

from lpt.cli.arguments import Commands, count, fraction

CONFIDENCE = 0.9


def add(commands: Commands) -> None:
    """Add the command."""
    review = commands.add_parser(
        "review",
        help="read the mistakes of a run",
        description="Show how well a finished run tells each class, which classes it confuses, the mistakes it is "
        "surest of with their texts, and how far its probabilities can be trusted. Of numbers: the largest errors.",
    )
    review.add_argument("run", type=Path, help="a run folder")
    review.add_argument(
        "--split", help="whose predictions (default: test, or else cross_validation, or else validation)"
    )
    review.add_argument("--mistakes", type=count, default=20, metavar="N", help="the most to show (default: 20)")
    review.add_argument(
        "--confidence",
        type=fraction,
        default=CONFIDENCE,
        metavar="P",
        help=f"tell how many rows are below this probability, and how right they are (default: {CONFIDENCE})",
    )
    review.add_argument("--output", type=Path, metavar="FILE", help="write a page too, such as review.html")
    review.set_defaults(command=_review)


def _review(arguments: argparse.Namespace) -> None:
    from lpt.cli.tables import fits, print_table
    from lpt.console import say
    from lpt.report.prediction_tables import class_table, confused_table, confusion_table, mistakes_table
    from lpt.report.review import review_of

    review = review_of(arguments.run, arguments.split)
    found = review.found
    say(f"{review.title}\n{review.headline}")
    if found.labels is not None:
        say(f"{review.coverage(arguments.confidence)}\n{review.calibration}\n")
        print_table(class_table(found))
        say("")
        wide, narrow = confusion_table(found), confusion_table(found, numbered=True)
        print_table(next(filter(fits, (wide, narrow)), confused_table(found)))
    shown = mistakes_table(found, arguments.mistakes)
    if shown.rows:
        say("\nmistakes, the surest first" if found.labels is not None else "\nthe largest errors")
        print_table(shown)
    if found.texts is None and shown.rows:
        say("\nthe run has not kept its texts (trainer.keep_text)")
    if arguments.output is not None:
        from lpt.files import write_text
        from lpt.report.review_page import review_page

        write_text(arguments.output, review_page(review, arguments.mistakes, arguments.confidence))
        say(f"\nin {arguments.output}")
