import json
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load, save
from tiny import tiny_adapter, tiny_model

from lpt import LatePromptClassifier
from lpt.backbones.pretrained import find_pretrained
from lpt.data.batches import EncodedSplit
from lpt.data.rows import LabeledRows
from lpt.errors import LptError
from lpt.generators import GENERATORS
from lpt.methods import METHODS, method_settings

TEXTS = ["a good film", "the film was dull never again", "it", "fine plot " * 10, "bad"]


@pytest.fixture(params=["llama", "bert"])
def family(request):
    return request.param


@pytest.fixture
def config(family, tmp_path):
    return tiny_adapter(tmp_path, family)


def build(config, **options):
    torch.manual_seed(3)
    pretrained = find_pretrained(config.backbone)
    classifier = LatePromptClassifier(config, pretrained, torch.float32, **options).eval()
    classifier.method.backbone.use_attention("lean")  # as `from_pretrained` chooses for short texts on a CPU
    return classifier


def test_predictions_come_in_order_and_do_not_depend_on_batches(config):
    classifier = build(config)
    together = classifier.predict(TEXTS, batch_size=2)
    for text, prediction in zip(TEXTS, together, strict=True):
        (alone,) = classifier.predict([text])
        assert prediction.label == alone.label
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert list(prediction.probabilities) == ["bad", "good"]
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        assert prediction.probabilities[prediction.label] == max(prediction.probabilities.values())


def test_many_texts_are_tokenised_in_chunks_and_stay_in_order(config, monkeypatch):
    classifier = build(config)
    whole = classifier.predict(TEXTS * 3)
    monkeypatch.setattr("lpt.classifier.CHUNK", 4)
    for chunked, expected in zip(classifier.predict(TEXTS * 3), whole, strict=True):
        assert chunked.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_no_texts_give_no_predictions(config):
    assert build(config).predict([]) == []


@pytest.mark.parametrize("head", ["label_words", "vocabulary", "linear"])
@pytest.mark.parametrize("generator", GENERATORS)
def test_save_and_load_give_the_same_predictions(config, tmp_path, generator, head):
    config = replace(config, head=head, settings=config.settings | {"generator": generator})
    classifier = build(config)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    classifier.save_pretrained(tmp_path / "adapter")
    random_state = torch.get_rng_state()
    loaded = LatePromptClassifier.from_pretrained(tmp_path / "adapter", accelerator="cpu", precision="32")
    assert not loaded.training
    assert torch.equal(torch.get_rng_state(), random_state)  # loading does not move the caller's
    for a, b in zip(loaded.predict(TEXTS), classifier.predict(TEXTS), strict=True):
        assert a == b


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_an_adapter_serves_over_a_quantized_backbone_too(config, tmp_path):
    classifier = build(config)
    classifier.save_pretrained(tmp_path / "adapter")
    loaded = LatePromptClassifier.from_pretrained(tmp_path / "adapter", "cpu", "32", quantization="int8")
    for a, b in zip(loaded.predict(TEXTS), classifier.predict(TEXTS), strict=True):
        assert a != b
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.1)


def test_an_adapter_finds_its_backbone_in_another_place_and_format_and_takes_no_other(config, tmp_path):
    classifier = build(config)
    classifier.save_pretrained(tmp_path / "adapter")
    moved = tmp_path / "elsewhere"
    (tmp_path / "backbone").rename(moved)
    with pytest.raises(LptError, match=r"If it is elsewhere, name it: --backbone=<folder or hub id>, in Python back"):
        LatePromptClassifier.from_pretrained(tmp_path / "adapter")
    loaded = LatePromptClassifier.from_pretrained(tmp_path / "adapter", "cpu", "32", backbone=moved)
    assert loaded.predict(TEXTS) == classifier.predict(TEXTS)
    assert loaded.config == replace(classifier.config, backbone=str(moved))
    LatePromptClassifier.from_pretrained(tmp_path / "adapter", "cpu", "bf16", backbone=str(moved))
    for change, reason in (
        ({"seed": 1}, "its weights are others"),
        ({"vocab_size": 40}, "it is .*, vocabulary of 40, not .*, vocabulary of 50"),
    ):
        tiny_model(loaded.config.architecture.partition(",")[0], **change).save_pretrained(moved)
        with pytest.raises(LptError, match=f"is not the backbone that the adapter was trained on, .*: {reason}"):
            LatePromptClassifier.from_pretrained(tmp_path / "adapter", backbone=moved)


SETTINGS = {
    "lpt_lora": {"prompt_length": 3, "generator": "phm", "bottleneck": 4, "rank": 2, "alpha": 4, "targets": "all"},
    "lora": {"rank": 2, "alpha": 4, "targets": "attention"},
    "adapter": {"bottleneck": 4, "placement": "pfeiffer"},
    "adapterdrop": {"bottleneck": 4, "placement": "houlsby"},
    "prompt_tuning": {"prompt_length": 3},
    "p_tuning_v2": {"prompt_length": 3},
    "s_idpg": {"prompt_length": 3, "bottleneck": 4},
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("lpt", "zero_shot")])
def test_every_method_saves_and_loads_what_gives_the_same_predictions(config, family, tmp_path, method, late):
    """Over an encoder with a linear head, over a decoder with whole answers."""
    settings = SETTINGS.get(method, {})
    if late:
        if "layer" not in method_settings(method):
            pytest.skip("cannot be late")
        settings = settings | {"layer": 3}
    if method == "bitfit" and family == "llama":
        pytest.skip("has no biases")
    head = "continuation" if family == "llama" and method not in ("linear_probe", "state_probe") else "linear"
    classifier = build(replace(config, method=method, settings=settings, head=head))
    before = classifier.predict(TEXTS)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    classifier.save_pretrained(tmp_path / "adapter")
    loaded = LatePromptClassifier.from_pretrained(tmp_path / "adapter", accelerator="cpu", precision="32")
    assert loaded.predict(TEXTS) == classifier.predict(TEXTS) != before


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("head", ["label_words", "vocabulary", "continuation", "linear"])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("zero_shot", "deep_lpt", "iapt")])
def test_all_that_is_trained_gets_a_gradient_under_every_head(config, family, method, head, late):
    """Several processes would wait for one that never comes."""
    fits = (
        (head != "continuation" or family == "llama")
        and (head == "linear" or method not in ("linear_probe", "state_probe"))
        and (method != "bitfit" or family != "llama")
        and (not late or "layer" in method_settings(method))
    )
    if not fits:
        pytest.skip("do not go together")
    settings = SETTINGS.get(method, {}) | ({"layer": 4} if late else {})
    classifier = build(replace(config, method=method, settings=settings, head=head)).train()
    trained = {name: p for name, p in classifier.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.3 * torch.randn_like(parameter))  # LoRA starts at zeros, behind which no gradient gets
    split = EncodedSplit.encode(LabeledRows([(TEXTS[0],), (TEXTS[1],)], [0, 1], [0, 1]), classifier.template)
    batch = split.collate([(0, 1.0), (1, 1.0)], classifier.pad_id)
    torch.nn.functional.cross_entropy(classifier.scores(batch), torch.tensor([0, 1])).backward()
    assert trained
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []


def test_an_adapter_records_the_layer_that_a_default_stood_for(config, tmp_path):
    build(config).save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["settings"]["layer"] == 3


@pytest.mark.parametrize(
    ("method", "layer", "recorded"), [("lora", None, 1), ("adapterdrop", None, 3), ("full", None, None), ("full", 2, 2)]
)
def test_so_does_every_other_but_full_fine_tuning_from_the_embeddings_on(config, method, layer, recorded):
    assert build(replace(config, method=method, settings={"layer": layer})).config.settings == {"layer": recorded}


def test_a_label_of_several_words_is_scored_as_a_whole(config, family):
    config = replace(config, label_words={"bad": "never again", "good": "great"}, head="continuation")
    if family == "bert":
        with pytest.raises(LptError, match="head=continuation scores what follows a text, so it needs a decoder"):
            build(config)
        return
    classifier = build(config)
    together = classifier.predict(TEXTS, batch_size=2)
    for text, prediction in zip(TEXTS, together, strict=True):
        assert prediction.probabilities == pytest.approx(classifier.predict([text])[0].probabilities, abs=1e-5)
    assert len({prediction.probabilities["bad"] for prediction in together}) == len(TEXTS)
    other = build(replace(config, answer="{word} , a film")).predict(TEXTS)
    assert other != together


def test_an_adapter_is_kilobytes_and_holds_the_trained_tensors_alone(config, tmp_path):
    from safetensors.torch import load_file

    build(config).save_pretrained(tmp_path / "adapter")
    assert set(load_file(tmp_path / "adapter" / "adapter.safetensors")) == {
        f"method.generator.{projection}.{part}"
        for projection in ("proj_down", "proj_up")
        for part in ("weight", "bias")
    }
    assert sum(path.stat().st_size for path in (tmp_path / "adapter").iterdir()) < 10_000


def damage_weights(folder):
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def damage_config(folder):
    (folder / "adapter_config.json").write_text("{")


def change_text(text, to):
    def change(folder):
        path = folder / "adapter_config.json"
        assert text in path.read_text()
        path.write_text(path.read_text().replace(text, to))

    return change


def change_temperature(to):
    return change_text('"temperature": 1.0', f'"temperature": {to}')


def change_tensors(change):
    """Other tensors, with a hash that agrees."""

    def put(folder):
        path = folder / "adapter.safetensors"
        before = path.read_bytes()
        tensors = load(before)
        change(tensors)
        path.write_bytes(save(tensors))
        hashes = [sha256(content).hexdigest() for content in (before, path.read_bytes())]
        change_text(*hashes)(folder)

    return put


extra_tensor = change_tensors(lambda tensors: tensors.update(more=torch.zeros(1)))
missing_tensor = change_tensors(lambda tensors: tensors.pop("method.generator.proj_up.bias"))
half = change_tensors(lambda tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}))
other_values = change_tensors(lambda tensors: tensors["method.generator.proj_up.bias"].add_(3))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        # -1 would turn every answer around, and 0 or NaN would make every probability NaN.
        *(
            (change_temperature(to), "temperature .* is not a number from 0.1 to 10")
            for to in ("-1", "0", "NaN", '"1"')
        ),
        (damage_weights, "is not the file that adapter_config.json was saved with, or .*copy the adapter folder again"),
        (lambda folder: (folder / "adapter.safetensors").unlink(), "could not be read .*copy the adapter folder again"),
        (
            change_text("was", "is"),
            "it gives other scores than when it was saved: they moved by .* float32 explains 0.01",
        ),
        (
            change_text('"scores": [', '"scores": [[0.5, 0.5], '),
            r"its probe has scores of shape \(5, 2\), expected \(4, 2\)",
        ),
        (other_values, "it gives other scores than when it was saved"),
        (half, r"is torch\.float16, expected torch\.float32; copy the adapter folder again"),
        (extra_tensor, r"does not fit .*\(more: \(1,\), expected absent\)"),
        (missing_tensor, r"does not fit .*\(method.generator.proj_up.bias: absent, expected \("),
        (damage_config, "adapter_config.json is damaged"),
        (change_text('"format": 4', '"format": 3'), "has format 3; this version of lpt reads format 4"),
        (
            change_text('"bottleneck": 4', '"bottleneck": 8'),
            r"does not fit its adapter_config.json \(method.generator.proj_down.bias: \(4,\), expected \(8,\)",
        ),
        (
            change_text('"bottleneck": 4', '"bottelneck": 4'),
            r"method=lpt has no setting 'bottelneck'; it has layer, prompt_length",
        ),
        (lambda folder: (folder / "adapter_config.json").unlink(), "holds no adapter .*adapter_config.json is missing"),
    ],
)
def test_a_damaged_adapter_is_refused(config, tmp_path, damage, message):
    build(config).save_pretrained(tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(LptError, match=message):
        LatePromptClassifier.from_pretrained(tmp_path / "adapter", "cpu", "32")


def test_an_adapter_that_is_neither_here_nor_on_the_hub_is_refused():
    with pytest.raises(LptError, match="'nobody/nothing' is neither a folder here nor an adapter on the hub"):
        LatePromptClassifier.from_pretrained("nobody/nothing")


def test_pairs_are_for_tasks_of_two_sentences_and_texts_for_the_others(config):
    with pytest.raises(LptError, match=r"texts\[1\]: task 'reviews' takes one text per row"):
        build(config).predict(["a", ("a", "b")])
    pair = build(replace(config, template=config.template.replace("{a}", "{a} {b}")))
    assert len(pair.predict([("a film", "it was good")])) == 1
    with pytest.raises(LptError, match=r"texts\[0\]: task 'reviews' takes a pair of texts"):
        pair.predict(["a film"])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is missing"),
        (b"a film", "is bytes"),
        (7, "is 7, of type int"),
        ({"text": "a"}, "is {'text': 'a'}, of type dict"),
        ("a \ud800 film", r"has half of a character \(lone surrogate U\+D800\) at place 3"),
    ],
)
def test_what_is_not_a_text_is_told_with_its_place_and_nothing_is_predicted(config, value, problem):
    with pytest.raises(LptError, match=rf"^texts\[1\] {problem}"):
        build(config).predict(["a film", value])


def test_a_single_text_is_not_taken_for_a_list_of_its_letters(config):
    classifier = build(config)
    assert classifier.predict("a film") == classifier.predict(["a film"])[0]


def test_an_unknown_method_is_refused_with_the_nearest_name(config):
    with pytest.raises(LptError, match=r"method=zero_shots is not known.*did you mean 'zero_shot'"):
        build(replace(config, method="zero_shots"))


def test_training_mode_reaches_the_generators_dropout(config):
    classifier = build(config, training={"dropout": 0.5}).train()
    assert classifier.method.generator.dropout.training
    assert classifier.method.generator.dropout.p == 0.5
