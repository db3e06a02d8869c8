"""`lpt export`: write what was trained in a form that others run."""

import argparse
from pathlib import Path

from lpt.cli.arguments import Commands
from lpt.export import FORMATS, export


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="write a classifier for ONNX, PyTorch or peft alone",
        description="Write a trained classifier in a form that others run without lpt: a program for onnxruntime or "
        "PyTorch, token ids in, probabilities out; or LoRA as an adapter folder of peft. It is loaded back and "
        "compared before it appears.",
    )
    parser.add_argument("adapter", help="a run folder, an adapter/ folder, or a hub id")
    parser.add_argument("--format", choices=list(FORMATS), required=True, help="what runs it")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument(
        "--backbone",
        metavar="PATH",
        help="where the backbone is, if not where the adapter was trained on it: a folder or hub id",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file of your own with the method, generator or head of the adapter; may be given several times",
    )
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> None:
    worst = export(arguments.adapter, arguments.format, arguments.output, arguments.backbone, arguments.plugin)
    what = "class score" if arguments.format == "peft" else "probability"
    print(f"{arguments.output}: loaded back and compared on probe texts; largest difference of a {what} {worst:.1e}")
