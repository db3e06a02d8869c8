"""Backbones from folders and from the hub's cache: with an LM head or without, whole or refused."""

import json
import pickle
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny import ENCODERS, FAMILIES, HIDDEN, tiny_config, tiny_model, tiny_tokenizer, trained_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lpt.backbones.families import FAMILIES as KNOWN
from lpt.backbones.pretrained import find_pretrained
from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder per family, as `save_pretrained` leaves it."""
    root = tmp_path_factory.mktemp("saved")
    for family in FAMILIES:
        tiny_model(family).save_pretrained(root / family)
        tiny_tokenizer().save_pretrained(root / family)
    return root


@pytest.fixture
def folder(saved, tmp_path):
    """A llama of one's own, to break."""
    return shutil.copytree(saved / "llama", tmp_path / "llama")


def load(path, **options):
    return find_pretrained(str(path), **options).load_model(torch.float32)


def complaint(function, *arguments, **options) -> str:
    with pytest.raises(LptError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, edit):
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


# What loads


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_comes_as_it_was_saved_in_eval_mode(saved, family):
    found = find_pretrained(str(saved / family))
    assert found.family is KNOWN[family]
    assert found.commit is None
    model = found.load_model(torch.float32)
    expected = tiny_model(family).state_dict()
    assert not model.training
    assert model.config._attn_implementation == "eager"
    assert model.get_output_embeddings() is not None
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_lm_head_is_made_up_where_the_weights_have_none(tmp_path, family):
    tiny_model(family, tie_word_embeddings=False).base_model.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.get_output_embeddings() is None
    assert model.base_model is model


@pytest.mark.parametrize("family", FAMILIES)
def test_an_lm_head_that_is_the_embeddings_needs_no_weights_of_its_own(tmp_path, family):
    tiny_model(family, tie_word_embeddings=True).base_model.save_pretrained(tmp_path)
    head = load(tmp_path).get_output_embeddings()
    if family in (*ENCODERS, "phi"):  # theirs has a transform besides, or a bias
        assert head is None
    else:
        assert torch.equal(head.weight, tiny_model(family, tie_word_embeddings=True).get_input_embeddings().weight)


@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
def test_debertas_own_lm_head_loads_though_its_config_does_not_tell(tmp_path, family):
    """As on the hub: transformers would look for another head, and make it up."""
    expected = trained_model(f"{family} with its own head")
    expected.save_pretrained(tmp_path)
    edit_config(tmp_path, legacy=True)
    ids = torch.arange(3, 9)[None]
    loaded, model = (SplitBackbone(each, 1) for each in (load(tmp_path), expected))
    z = model.finish(torch.randn(2, HIDDEN))
    assert torch.equal(loaded.vocabulary_logits(z), model.vocabulary_logits(z))
    torch.testing.assert_close(loaded.model(ids).logits, expected(ids).logits)


def test_a_classifier_serves_as_an_encoder_without_lm_head(tmp_path):
    AutoModelForSequenceClassification.from_config(tiny_config("bert")).save_pretrained(tmp_path)
    assert type(load(tmp_path)).__name__ == "BertModel"


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_come_in_the_number_format_asked_for(saved, family):
    model = find_pretrained(str(saved / family)).load_model(torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_folder_may_have_any_name(folder):
    odd = folder.rename(folder.with_name("it's a {model}, = $HOME"))
    assert find_pretrained(str(odd)).load_tokenizer().mask_token == "<mask>"
    load(odd)


def test_weights_in_several_files_load(folder):
    shutil.rmtree(folder)
    tiny_model("llama").save_pretrained(folder, max_shard_size="4KB")
    assert not (folder / "model.safetensors").exists()
    load(folder)


def test_tensors_in_a_pickle_load_and_nothing_else_in_it_runs(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    load(folder)

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for content in (pickle.dumps(Evil(), protocol=2), b"damaged"):
        (folder / "pytorch_model.bin").write_bytes(content)
        assert complaint(load, folder) == (
            f"backbone.path='{folder}': its pytorch_model.bin is damaged, or holds more than tensors, which is never "
            "unpickled; get the weights as model.safetensors"
        )
    assert not (tmp_path / "ran").exists()


# What is refused


@pytest.mark.parametrize(
    ("lost", "example"),
    [
        (["model.layers.2.mlp.up_proj.weight"], "model.layers.2.mlp.up_proj.weight"),
        (["model.norm.weight", "lm_head.weight"], "lm_head.weight"),
    ],
)
def test_incomplete_weights_are_refused_by_name(folder, lost, example):
    edit_weights(folder, lambda state: {name: tensor for name, tensor in state.items() if name not in lost})
    assert complaint(load, folder) == (
        f"backbone.path='{folder}': the weights lack {len(lost)} of the tensors that its config.json asks for, such as "
        f"{example}; they are damaged, or of another model"
    )


def test_half_an_lm_head_is_not_filled_up(saved, tmp_path):
    folder = shutil.copytree(saved / "roberta", tmp_path / "roberta")
    lost = "lm_head.dense.weight"
    edit_weights(folder, lambda state: {name: tensor for name, tensor in state.items() if name != lost})
    assert lost in complaint(load, folder)


def test_weights_of_another_shape_are_refused_by_name(folder):
    edit_config(folder, intermediate_size=48)
    assert complaint(load, folder) == (
        f"backbone.path='{folder}': the weights do not fit its config.json: model.layers.0.mlp.down_proj.weight is "
        "[16, 24], expected [16, 48]"
    )


def test_a_file_that_is_cut_short_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert complaint(load, folder).startswith(f"backbone.path='{folder}': its weights could not be loaded (")


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("config.json", "has no config.json; it has model.safetensors, other.bin"),
        ("model.safetensors", "has no weights (model.safetensors); it has config.json, other.bin"),
    ],
)
def test_a_folder_without_config_or_weights_is_refused_with_what_it_has(folder, file, problem):
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    (folder / "other.bin").touch()
    (folder / file).unlink()
    assert complaint(find_pretrained, str(folder)) == f"backbone.path='{folder}' {problem}"


def test_an_empty_folder_is_refused(tmp_path):
    assert (
        complaint(find_pretrained, str(tmp_path)) == f"backbone.path='{tmp_path}' has no config.json; it has no files"
    )


@pytest.mark.parametrize("model_type", ["t5", "no-such-type", None])
def test_a_model_of_no_known_family_is_refused_with_those_there_are(folder, model_type):
    edit_config(folder, model_type=model_type)
    assert complaint(find_pretrained, str(folder)).startswith(
        f"backbone.path='{folder}': backbone of type {model_type!r} fits no known family; known: albert, bert, "
    )


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [("deberta-v2", "conv_kernel_size", 3), ("gemma3_text", "use_bidirectional_attention", True)],
)
def test_what_a_family_does_not_support_is_refused_by_its_field(saved, tmp_path, family, field, value):
    folder = shutil.copytree(saved / family, tmp_path / family)
    edit_config(folder, **{field: value})
    assert complaint(find_pretrained, str(folder)).startswith(
        f"backbone.path='{folder}': backbone of type {family!r} is not supported as it is configured: "
    )


def test_a_shape_that_a_family_does_not_support_is_refused():
    path = "random://gemma?use_bidirectional_attention=true"
    assert "is not supported as it is configured" in complaint(find_pretrained, path)


def test_a_config_that_cannot_be_read_is_refused(folder):
    (folder / "config.json").write_text("{")
    assert complaint(find_pretrained, str(folder)).startswith(
        f"backbone.path='{folder}': its config.json cannot be used"
    )


def test_code_that_comes_with_a_model_never_runs(folder, tmp_path):
    for module in ("theirs", "tokenizer"):
        (folder / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    edit_config(folder, auto_map={"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"})
    tokenizer_config = folder / "tokenizer_config.json"
    settings = json.loads(tokenizer_config.read_text()) | {
        "auto_map": {"AutoTokenizer": ["tokenizer.T", "tokenizer.T"]}
    }
    tokenizer_config.write_text(json.dumps(settings))
    find_pretrained(str(folder)).load_tokenizer()
    load(folder)
    edit_config(folder, model_type="theirs")
    assert "fits no known family" in complaint(find_pretrained, str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_vocabulary_is_not_taken_for_a_tokenizer(saved, tmp_path, family):
    folder = shutil.copytree(saved / family, tmp_path / family, ignore=shutil.ignore_patterns("tokenizer*"))
    found = find_pretrained(str(folder))
    assert complaint(found.load_tokenizer).startswith(
        f"backbone.path='{folder}' has no fast tokenizer (tokenizer.json)"
    )


@pytest.mark.parametrize("installed", [True, False])
def test_a_tokenizer_that_takes_another_library_says_which(folder, monkeypatch, installed):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "tokenizer.model").write_bytes(b"no SentencePiece model")
    monkeypatch.setattr("lpt.backbones.pretrained.find_spec", lambda name: installed or None)
    found = complaint(find_pretrained(str(folder)).load_tokenizer)
    assert found.endswith("it takes pip install 'lpt[sentencepiece]'") == (not installed)


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors"])
def test_a_file_is_refused_with_the_way_to_make_a_folder_of_it(tmp_path, name):
    (tmp_path / name).touch()
    found = complaint(find_pretrained, str(tmp_path / name))
    assert found.startswith(f"backbone.path='{tmp_path / name}' is a file; expected a folder with config.json")
    assert "gguf_file=<name>" in found


# The hub


@pytest.fixture
def hub_cache(saved, tmp_path, monkeypatch):
    """The hub's cache with one model, as a download leaves it; returns its commit."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "a" * 40
    model = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(saved / "gpt2", model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return commit


def test_a_hub_id_offline_comes_from_the_cache_and_its_commit_is_known(hub_cache):
    for revision in (None, "main", hub_cache):
        found = find_pretrained("someone/tiny", revision)
        assert found.commit == hub_cache
    assert len(found.load_tokenizer()) == len(tiny_tokenizer())
    assert found.load_model(torch.float32).name_or_path == "someone/tiny"


def test_all_files_come_from_the_commit_of_the_config_though_the_branch_moves(hub_cache, tmp_path, monkeypatch):
    found = find_pretrained("someone/tiny", "main")
    (tmp_path / "hub" / "models--someone--tiny" / "refs" / "main").write_text("b" * 40)
    asked = []
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *_, **options: asked.append(options) or tiny_tokenizer()
    )
    found.load_tokenizer()
    assert asked == [{"revision": hub_cache, "trust_remote_code": False}]
    found.load_model(torch.float32)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize(("path", "revision"), [("someone/else", None), ("someone/tiny", "v2"), ("gpt2", None)])
def test_a_hub_id_offline_that_the_cache_lacks_ends_in_one_clear_error(path, revision):
    at = f" (backbone.revision={revision})" if revision else ""
    assert complaint(find_pretrained, path, revision) == (
        f"backbone.path='{path}'{at}: there is no such folder, and as a hub id it cannot be had: the hub is out of "
        "reach (HF_HUB_OFFLINE is set), and its cache lacks it. Without a network, give a local folder, or use "
        "backbone=smollm2-135m, which needs only pip"
    )


def test_what_the_hub_answers_is_passed_on(monkeypatch):
    def refuse(*_, **__):
        raise OSError(
            "You are trying to access a gated repo.\nMake sure to have access to it at https://hub/x.\n403\n..."
        )

    monkeypatch.setattr("lpt.backbones.pretrained.hub_answers", lambda: True)
    monkeypatch.setattr("lpt.backbones.pretrained.cached_file", refuse)
    assert complaint(find_pretrained, "owner/x") == (
        "backbone.path='owner/x': there is no such folder, and the hub does not give it: You are trying to access a "
        "gated repo. Make sure to have access to it at https://hub/x"
    )


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "./model", "a/b/c", "two words", "", "https://huggingface.co/gpt2"]
)
def test_what_is_neither_folder_nor_hub_id_is_refused(path):
    assert complaint(find_pretrained, path) == (
        f"backbone.path='{path}': there is no such folder, and a hub id is <owner>/<name>"
    )


def test_a_revision_is_for_hub_ids(folder):
    assert complaint(find_pretrained, str(folder), "main") == (
        f"backbone.revision=main goes with a hub id, but backbone.path='{folder}' is local"
    )


# Random weights

SHAPE = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
MORE = {  # what some families cannot have at its usual size then
    "albert": {"embedding_size": 16},
    "electra": {"embedding_size": 16},
    "gpt_neo": {"attention_types": '[[["global","local"],1]]'},
    "modernbert": {"pad_token_id": 0},
    "phi3": {"pad_token_id": 0},
}


def random_path(family, **fields):
    fields = SHAPE | MORE.get(family, {}) | fields
    return f"random://{family}?" + "&".join(f"{name}={value}" for name, value in fields.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shape_alone_gives_a_model_of_random_weights_in_eval_mode(family):
    found = find_pretrained(random_path(family, tie_word_embeddings="true"))
    assert (found.family, found.commit, found.config.tie_word_embeddings) == (KNOWN[family], None, True)
    assert {name: getattr(found.config, name) for name in SHAPE} == SHAPE
    models = [found.load_model(torch.bfloat16) for _ in range(2)]
    assert {parameter.dtype for parameter in models[0].parameters()} == {torch.bfloat16}
    assert (models[0].training, models[0].config._attn_implementation) == (False, "eager")
    weights = [model.get_output_embeddings().weight for model in models]
    assert weights[0].shape == (30, 16)
    assert not torch.equal(*weights)


def test_random_weights_have_no_tokenizer():
    path = random_path("llama")
    assert complaint(find_pretrained(path).load_tokenizer) == (
        f"backbone.path={path!r} has random weights and no tokenizer: it is for lpt bench alone"
    )


@pytest.mark.parametrize(
    "query",
    [
        "hidden_size",
        "hidden_size=wide",
        "hidden_size=16.5",
        "hidden_size=16&&vocab_size=8",
        "hidden_size=",
        "hiden_size=16",
    ],
)
def test_a_shape_that_cannot_be_read_is_refused_with_the_form_it_has(query):
    path = f"random://roberta?{query}"
    assert complaint(find_pretrained, path).startswith(
        f"backbone.path={path!r} must be random://<model type>?<field>=<number>&..., fields as in the model type's "
        "config: "
    )


@pytest.mark.parametrize("model_type", ["t5", "no-such-type", ""])
def test_random_weights_of_no_known_family_are_refused_with_those_there_are(model_type):
    path = f"random://{model_type}?hidden_size=8"
    assert complaint(find_pretrained, path).startswith(
        f"backbone.path={path!r}: backbone of type {model_type!r} fits no known family; known: albert, bert, "
    )


def test_an_impossible_shape_is_refused():
    path = "random://roberta?hidden_size=16&num_attention_heads=3"
    assert complaint(find_pretrained(path).load_model, torch.float32).startswith(
        f"backbone.path={path!r} is no possible shape: "
    )


def test_a_shape_has_no_revision():
    assert "backbone.revision=v1 goes with a hub id" in complaint(find_pretrained, "random://roberta", "v1")
