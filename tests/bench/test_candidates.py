import sys
from dataclasses import replace

import pytest
import torch
from tiny import HIDDEN, LAYERS, VOCABULARY, tiny_model, token_batch
from tiny_bench import CANDIDATES, composed

from lpt.bench.candidates import INVOCATION, build_candidate
from lpt.bench.measure import _keep
from lpt.config.candidates import method_of
from lpt.config.fields import options_class
from lpt.config.resolve import resolve
from lpt.data.batches import Batch, EncodedSplit
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded
from lpt.errors import LptError

LABELS = [10, 11, 12]


@pytest.fixture(params=["roberta", "llama"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def config():
    return resolve(composed())


def build(method, config, family):
    return build_candidate(method, tiny_model(family), config, LABELS).eval()


def padded_batch():
    """Read out where a row's text ends, which is not where the batch ends."""
    input_ids, mask = token_batch()
    rows = torch.arange(len(input_ids))
    return Batch(input_ids, mask.bool(), mask.sum(1) - 1, rows % len(LABELS), rows, rows * 0.25, int(mask.sum()))


def read(logits, batch, prompt_length=0):
    """The label ids' logits of each row, one by one."""
    rows = [logits[i, prompt_length + at, LABELS] for i, at in enumerate(batch.readout_position.tolist())]
    return torch.stack(rows)


def lora_names(family):
    if family == "roberta":
        maps = [
            f"roberta.encoder.layer.{i}.attention.self.{name}" for i in range(LAYERS) for name in ("query", "value")
        ]
    else:
        maps = [f"model.layers.{i}.self_attn.{name}" for i in range(LAYERS) for name in ("q_proj", "v_proj")]
    return {f"model.base_model.model.{name}.lora_{side}.default.weight" for name in maps for side in "AB"}


TRAINED = {
    "full": lambda family: {f"model.{name}" for name, _ in tiny_model(family).named_parameters()},
    "lora": lora_names,
    "prompt_tuning": lambda family: {"model.prompt_encoder.default.embedding.weight"},
    "lpt": lambda family: {
        f"method.generator.proj_{way}.{part}" for way in ("down", "up") for part in ("weight", "bias")
    },
}
COUNTS = {
    ("lora", "roberta"): LAYERS * 2 * 8 * (HIDDEN + HIDDEN),
    ("lora", "llama"): LAYERS
    * 8
    * ((HIDDEN + HIDDEN) + (HIDDEN + HIDDEN // 2)),  # one head of values for two of queries
    ("prompt_tuning", "roberta"): 20 * HIDDEN,
    ("prompt_tuning", "llama"): 20 * HIDDEN,
    ("lpt", "roberta"): HIDDEN * 4 + 4 + 4 * 5 * HIDDEN + 5 * HIDDEN,
    ("lpt", "llama"): HIDDEN * 4 + 4 + 4 * 5 * HIDDEN + 5 * HIDDEN,
}


@pytest.mark.parametrize("method", TRAINED)
def test_each_method_trains_its_own_tensors_and_gradients_reach_nothing_else(config, family, method):
    candidate = build(method, config, family)
    trained = {name: p for name, p in candidate.named_parameters() if p.requires_grad}
    assert set(trained) == TRAINED[method](family)
    size = sum(p.numel() for p in trained.values())
    assert size == COUNTS.get((method, family), tiny_model(family).num_parameters())
    with torch.no_grad():
        for p in trained.values():
            p.add_(0.1 * torch.randn_like(p))  # LoRA starts from zeros, behind which nothing has a gradient
    candidate.losses(padded_batch()).sum().backward()
    reached = {name for name, p in candidate.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == set(trained)


@pytest.mark.parametrize("method", ["full", "lora", "per_label"])
def test_scores_are_the_models_own_logits_of_the_label_words_at_the_read_out(config, family, method):
    batch, model = padded_batch(), tiny_model(family)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert logits.shape[-1] == VOCABULARY
    torch.testing.assert_close(build(method, config, family).scores(batch), read(logits, batch), atol=1e-6, rtol=0)


def test_prompt_tuning_is_read_out_after_its_prompt_tokens(config, family):
    batch, model, candidate = padded_batch(), tiny_model(family), build("prompt_tuning", config, family)
    prompt = candidate.model.prompt_encoder.default.embedding.weight.expand(len(batch.labels), -1, -1)
    embeds = torch.cat([prompt, model.get_input_embeddings()(batch.input_ids)], dim=1)
    mask = torch.cat([torch.ones(len(prompt), 20), batch.attention_mask], dim=1)
    expected = read(model(inputs_embeds=embeds, attention_mask=mask).logits, batch, prompt_length=20)
    torch.testing.assert_close(candidate.scores(batch), expected, atol=1e-6, rtol=0)


def test_per_label_takes_a_forward_pass_for_each_label(config, family):
    passes = []
    candidate = build("per_label", config, family)
    candidate.model.register_forward_hook(lambda *_: passes.append(1))
    candidate.scores(padded_batch())
    assert len(passes) == len(LABELS)


LATE = [name for name in CANDIDATES if name.startswith("late_") and name.endswith("_cached")]


def with_method(config, candidate, family):
    """As a bench has it: the settings of the candidate's own method."""
    name = method_of(candidate)
    if name == "bitfit" and family == "llama":
        pytest.skip("has no biases")
    return replace(config, method=options_class("method", name)())


@pytest.mark.parametrize("candidate", LATE)
def test_late_candidates_begin_at_the_layer_of_the_late_prompt(config, family, candidate):
    own = with_method(config, candidate, family)
    for layer, begins in ((2, 2), (None, LAYERS // 2 + 1)):
        scorer = build(candidate, replace(own, lpt=replace(own.lpt, layer=layer)), family)
        assert scorer.method.backbone.layer == begins


READ_ONLY = ["lpt_read_only_cached", "lora_read_only_cached", "prompt_tuning_read_only_cached"]


@pytest.mark.parametrize("candidate", ["lpt", "lpt_cached", "late_lora", *READ_ONLY, *LATE])
def test_candidates_read_the_text_once_where_their_name_says_so(config, family, candidate):
    own = with_method(config, candidate, family)
    for asked in (False, True):
        method = build(candidate, replace(own, lpt=replace(own.lpt, read_only=asked)), family).method
        assert method.read_only == ("_read_only" in candidate)


@pytest.mark.parametrize("candidate", ["lpt_cached", "lpt_lora_cached", "adapterdrop_cached", *READ_ONLY, *LATE])
def test_what_is_cached_gives_the_losses_of_what_is_computed_anew(config, family, candidate):
    config = with_method(config, candidate, family)
    input_ids, mask = token_batch()
    rows = [
        Encoded(ids[keep.bool()].tolist(), int(keep.sum()) - 1, False)
        for ids, keep in zip(input_ids, mask, strict=True)
    ]
    split = EncodedSplit(rows, LabeledRows([("",)] * len(rows), [0, 1, 2, 0], list(range(len(rows)))))
    torch.manual_seed(1)
    anew = build(candidate.removesuffix("_cached"), config, family)
    torch.manual_seed(1)
    cached = build(candidate, config, family)
    kept = _keep(cached.method, split)
    assert (kept.keys_values is not None) == ("_read_only" in candidate)
    items = [(i, 0.25) for i in range(len(rows))]
    expected = anew.losses(split.collate(items, 1))
    cached.method.trunk = cached.method.backbone.read = None  # not to be computed
    torch.testing.assert_close(cached.losses(split.collate(items, 1, kept)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("candidate", ["full", "lora", "prompt_tuning", "lpt", "late_lora", "late_full"])
def test_candidates_drop_nothing_while_training_unless_they_are_asked_to(config, candidate):
    own, batch = with_method(config, candidate, "roberta"), padded_batch()
    for dropout in (False, True):
        module = build(candidate, replace(own, lpt=replace(own.lpt, dropout=dropout)), "roberta").train()
        assert torch.equal(module.losses(batch), module.losses(batch)) != dropout
        module.eval()
        assert torch.equal(module.losses(batch), module.losses(batch))


def test_activated_lora_changes_the_last_token_alone(config):
    input_ids, _ = token_batch((7, 7, 7, 7))
    rows = torch.arange(4)
    batch = Batch(input_ids, None, torch.full((4,), 6), rows % len(LABELS), rows, rows * 0.25, 28)
    ended = input_ids.clone()
    ended[:, -1] = INVOCATION
    stock = tiny_model("llama")(input_ids=ended, output_hidden_states=True)
    candidate = build("alora", config, "llama")
    trained = {name: p for name, p in candidate.named_parameters() if p.requires_grad}
    assert set(trained) == lora_names("llama")
    assert sum(p.numel() for p in trained.values()) == COUNTS["lora", "llama"]
    torch.testing.assert_close(candidate.scores(batch), stock.logits[:, -1, LABELS], atol=1e-6, rtol=0)
    with torch.no_grad():
        for p in trained.values():
            p.add_(0.1 * torch.randn_like(p))
    changed = candidate.model(input_ids=ended, output_hidden_states=True)
    torch.testing.assert_close(changed.hidden_states[-1][:, :-1], stock.hidden_states[-1][:, :-1])
    assert (candidate.scores(batch) - stock.logits[:, -1, LABELS]).abs().max() > 1e-3
    candidate.losses(batch).sum().backward()
    assert {name for name, p in candidate.named_parameters() if p.grad is not None and p.grad.any()} == set(trained)


def test_activated_lora_needs_a_decoder(config):
    with pytest.raises(LptError, match=r"^alora needs a decoder, whose text does not see the tokens behind it$"):
        build("alora", config, "roberta")


@pytest.mark.parametrize("method", ["lora", "alora", "prompt_tuning"])
def test_without_peft_its_methods_say_what_to_install(config, method, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LptError, match=r"peft, which is not installed: pip install 'lpt\[bench\]'"):
        build(method, config, "llama")
