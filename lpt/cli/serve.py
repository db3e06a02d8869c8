"""`lpt serve`: adapters behind HTTP."""

import argparse
import ctypes
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from lpt.backbones.names import ACCELERATORS, AUTO, PRECISIONS, QUANTIZATIONS
from lpt.cli.adapters import add_plugins, named_adapters
from lpt.cli.arguments import Commands, folder, positive
from lpt.errors import LptError

NEEDS = ("fastapi", "uvicorn", "prometheus_client")
M_ARENA_MAX = -8  # of malloc.h
TOKEN = "LPT_SERVE_TOKEN"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add(commands: Commands) -> None:
    """Add the command."""
    serve = commands.add_parser(
        "serve",
        help="answer over HTTP",
        description="Load adapters over one backbone and answer over HTTP, with a page to try them on. Requests are "
        "answered together, and each text is read once for all tasks.",
    )
    serve.add_argument(
        "adapters", nargs="+", metavar="adapter", help="a run folder, an adapter/ folder or a hub id, or name=<one>"
    )
    serve.add_argument(
        "--host", default=LOOPBACK[0], help=f"address to listen on (default: {LOOPBACK[0]}, this machine)"
    )
    serve.add_argument("--port", type=positive, default=8000, help="(default: 8000)")
    serve.add_argument(
        "--token-file", type=Path, help=f"a file with the token that requests must bear (or the variable {TOKEN})"
    )
    serve.add_argument(
        "--adapters-root", type=folder, help="a folder from which adapters may be added while the server runs"
    )
    serve.add_argument(
        "--remember", type=positive, default=256, metavar="MB", help="memory for texts that were read (default: 256)"
    )
    serve.add_argument("--max-texts", type=positive, default=256, help="texts in a request (default: 256)")
    serve.add_argument("--max-waiting", type=positive, default=4096, help="rows that may wait (default: 4096)")
    serve.add_argument("--backbone", metavar="PATH", help="where the backbone is, if not where it was trained on")
    serve.add_argument("--accelerator", choices=(AUTO, *ACCELERATORS), default=AUTO, help="(default: a GPU if any)")
    serve.add_argument("--precision", choices=(AUTO, *PRECISIONS), default=AUTO, help="number format of the backbone")
    serve.add_argument("--quantization", choices=QUANTIZATIONS, help="quantize the layers of the backbone")
    serve.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a Python file of your own")
    serve.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> None:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise LptError(f"lpt serve needs {', '.join(missing)}, not installed here: pip install 'lpt[serve]'")
    token = _token(arguments.token_file)
    if arguments.adapters_root is not None and not arguments.adapters_root.is_dir():
        raise LptError(f"--adapters-root: there is no folder {arguments.adapters_root}")
    adapters = named_adapters(arguments.adapters)
    _bound_memory()
    add_plugins(arguments)
    import uvicorn

    from lpt.console import say_on_stderr
    from lpt.many_tasks import MultiTaskClassifier
    from lpt.serving.app import make_app
    from lpt.serving.limits import Limits

    say_on_stderr(f"loading {', '.join(adapters)} ...")

    def load() -> MultiTaskClassifier:
        return MultiTaskClassifier(
            {name: place for name, (place, _) in adapters.items()},
            arguments.accelerator,
            arguments.precision,
            arguments.quantization,
            arguments.backbone,
            remember=arguments.remember * 1_000_000,
        )

    limits = Limits(texts=arguments.max_texts, waiting_rows=arguments.max_waiting)
    local = arguments.host in LOOPBACK
    hosts = (*LOOPBACK, "[::1]") if local else ("*",)  # so that no page elsewhere can reach it by another name
    app = make_app(load, limits, token, arguments.adapters_root, hosts)
    if not local and token is None:
        say_on_stderr(
            f"warning: everyone who reaches {arguments.host} can ask; give a token by {TOKEN} or --token-file"
        )
    shown = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    say_on_stderr(f"serving {', '.join(adapters)} on http://{shown}:{arguments.port} (Ctrl-C ends it)")
    uvicorn.run(
        app, host=arguments.host, port=arguments.port, log_level="warning", access_log=False, server_header=False
    )


def _bound_memory() -> None:
    """Bound what grows with the requests: compiled kernels, one for each shape that was seen, and glibc's pools.

    Before torch is imported. oneDNN would keep 1,024 kernels, half a gigabyte.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _token(path: Path | None) -> str | None:
    """The token, from the file or the environment: a command line is seen by all who list processes."""
    if path is None:
        return os.environ.get(TOKEN) or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LptError(f"--token-file: {path} cannot be read ({error})") from None
    if not token:
        raise LptError(f"--token-file: {path} is empty")
    return token
