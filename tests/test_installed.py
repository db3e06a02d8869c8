"""A built wheel, installed into an environment of its own, works from an empty folder, without the checkout."""

import json
import os
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from experiment import make_experiment
from places import REPOSITORY

import lpt

pytestmark = pytest.mark.e2e
SOURCES = ("lpt", "conf", "hydra_plugins", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@dataclass(frozen=True)
class Installation:
    """An environment with the wheel, and an empty folder to work in."""

    scripts: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in the folder; returns what it printed."""
        own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(
            [self.scripts / program, *arguments],
            cwd=self.folder,
            env={**own, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources, so that nothing is left in the checkout; without a network."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(build, cwd=folder, check=True)
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installation(wheel, tmp_path_factory) -> Installation:
    """The wheel in an environment that sees the packages of this one behind its own."""
    folder = tmp_path_factory.mktemp("installation")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    scripts = folder / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", scripts / "python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    # After the installation, so that pip never looks at them.
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    (folder / "empty").mkdir()
    return Installation(scripts, folder / "empty")


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> list[str]:
    """A tiny backbone and task, and a `conf` folder of the user's own with their learning rate."""
    experiment = make_experiment(tmp_path_factory.mktemp("experiment"))
    mine = experiment.folder / "conf" / "optim"
    mine.mkdir(parents=True)
    (mine / "mine.yaml").write_text("lr: 0.0123\n")
    few = ["trainer.max_epochs=1", "cache=off", "logger=csv"]
    return ["--config-dir", str(experiment.folder / "conf"), "optim=mine", *experiment.options_but("optim.lr"), *few]


def test_the_copy_is_used_and_the_checkout_is_not(installation):
    code = "import lpt, lpt.config.schema as s; print(lpt.__file__); print(s.CONF_DIR)"
    package, conf = map(Path, installation.run("python", "-c", code).split())
    assert package.is_relative_to(installation.scripts.parent)
    assert conf == package.parent / "conf"
    assert installation.run("lpt", "--version") == f"lpt {lpt.__version__}\n"
    files = {path.relative_to(conf) for path in conf.rglob("*.yaml")}
    assert files == {path.relative_to(REPOSITORY / "conf") for path in (REPOSITORY / "conf").rglob("*.yaml")}
    assert (package.parent / "py.typed").is_file()


def test_it_trains_resumes_and_predicts(installation, options):
    installation.run("lpt", "train", *options, "hydra.run.dir=run")
    result = json.loads((installation.folder / "run" / "result.json").read_text())
    assert (result["status"], result["train"]["steps"]) == ("completed", 6)
    assert "lr: 0.0123" in (installation.folder / "run" / ".hydra" / "config.yaml").read_text()

    # On two devices, whose second process Lightning starts by repeating the command.
    installation.run("lpt", "train", "resume=run", "trainer.max_epochs=2", "trainer.devices=2")
    assert json.loads((installation.folder / "run" / "result.json").read_text())["train"]["steps"] == 12

    answers = installation.run("lpt", "predict", "run/adapter", "--text", "a good film", "it was dull")
    assert [json.loads(line)["text"] for line in answers.splitlines()] == ["a good film", "it was dull"]


def test_it_sweeps_and_resumes_sweeps(installation, options):
    sweep = ["-m", *options, "seed=1", "trainer.max_steps=1", "hydra.sweep.dir=sweep"]
    assert "1 point: 1 completed" in installation.run("lpt", "train", *sweep)
    (point,) = (path.parent for path in (installation.folder / "sweep").glob("*/result.json"))
    shutil.rmtree(point)
    assert "1 point: 1 completed" in installation.run("lpt", "sweep", "resume", "sweep")
    assert "lr: 0.0123" in (point / ".hydra" / "config.yaml").read_text()


def test_it_benches(installation):
    sizes = "vocab_size=60&hidden_size=16&num_hidden_layers=2&num_attention_heads=2&intermediate_size=24"
    tiny = [f"backbone.path='random://roberta?{sizes}&max_position_embeddings=40'", "backbone.name=tiny"]
    few = ["lpt.layer=2", "bench.methods=[lpt]", "bench.precisions=[32]", "bench.tokens=8", "bench.steps=1"]
    installation.run("lpt", "bench", *tiny, *few, "trainer.accelerator=cpu", "bench.output=bench")
    (result,) = json.loads((installation.folder / "bench" / "bench.json").read_text())["results"]
    assert result["step_seconds"] > 0
