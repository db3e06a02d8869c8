"""Methods that read the text once, against a slow and plain implementation of what docs/methods.md says of them."""

from types import SimpleNamespace

import pytest
import torch
from method_zoo import FROM_THE_INPUT, SETTINGS, readout, stir, trained
from tiny import (
    DECODERS,
    HIDDEN,
    LAYERS,
    SHAPES,
    attentions,
    model_type,
    tiny_model,
    token_batch,
    trained_model,
)

from lpt.backbones.context import Context
from lpt.backbones.families import FAMILIES as KNOWN
from lpt.backbones.masks import additive
from lpt.cache.trunk import TrunkCache
from lpt.classifier import Scorer
from lpt.data.batches import EncodedSplit
from lpt.data.ragged import Kept
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded
from lpt.errors import LptError
from lpt.heads import branches, build_head
from lpt.late_prompt import LateMethod, LatePromptModel
from lpt.methods import build_method
from lpt.methods.ladder import LadderSideTuning

LENGTHS = (7, 3, 10, 1)
READABLE = tuple(shape for shape in SHAPES if KNOWN[model_type(shape)].keys_values is not None)
SOME = ("bert", "modernbert", "gpt2", "gemma3_text", "mistral")
PROMPT = 3


class SwappedKeys:
    """Stands where a layer expects a cache: the text's keys and values are those of the frozen layer."""

    def __init__(self, frozen, prefix):
        self.frozen, self.prefix = frozen, prefix

    def update(self, keys, values, layer_idx, *args, **kwargs):
        length = self.frozen[0].shape[2]
        return tuple(
            torch.cat([*prefix, old, new[:, :, length:]], 2)
            for prefix, old, new in zip(self.prefix, self.frozen, (keys, values), strict=True)
        )


class Recorded:
    def update(self, keys, values, layer_idx, *args, **kwargs):
        self.found = keys, values
        return keys, values


def positions_of(text, prompt, extra, position, causal):
    """Where each token of `[text ; prompt ; read-out token ; answer]` stands."""
    if causal:
        return [*range(text), *range(position, position + prompt + 1 + extra)]
    return [*range(text), *range(position - prompt, position), position]


def sees(text, prompt, position, causal, window, places):
    """Which keys each token of `[text ; prompt ; read-out token ; answer]` sees; what text tokens do is not asked."""
    total = len(places)
    seen = torch.zeros(total, total, dtype=torch.bool)
    for i in range(total):
        for j in range(total):
            if i < text:
                seen[i, j] = i == j
            elif j < text:
                seen[i, j] = (j < position if causal else j != position) and (
                    window is None or abs(places[i] - places[j]) < window
                )
            elif j < text + prompt:
                seen[i, j] = not causal or j <= i
            else:
                seen[i, j] = (not causal or j <= i) and (window is None or abs(places[i] - places[j]) < window)
    return seen


def plainly(method, stock, ids, position, answer=()):
    """Finished states of one text at its read-out token and an answer's, `[1 + answer, H]`: all tokens at once.

    Args:
        method: with layers that may be changed.
        stock: a `LateMethod` over the same weights, not changed.
        ids: token ids of the text.
        position: of the read-out token.
        answer: token ids behind it.
    """
    backbone, causal = method.backbone, method.backbone.causal
    tokens = torch.tensor([[*ids, *answer]])
    with torch.no_grad():
        h = stock.backbone.run(stock.backbone.embed(tokens), None, 1, backbone.layer - 1)
    prompt = method.generate(h[:, : len(ids)], None, torch.tensor([position]))
    text, p = len(ids), prompt.shape[1]
    active = torch.cat([prompt, h[:, position : position + 1], h[:, text:]], 1)
    places = positions_of(text, p, len(answer), position, causal)
    given = backbone._passes.positions(active, SimpleNamespace(positions=torch.tensor([places])))
    alone = backbone._passes.positions(active, SimpleNamespace(positions=torch.arange(text)[None]))
    h, beside = h[:, :text], []
    entering = method.entering(None, torch.tensor([position]))
    for index in range(backbone.layer - 1, LAYERS):
        if entering is not None:
            active = entering(index + 1, active)
        beside.append(active)
        recorded, family = Recorded(), backbone.family
        with torch.no_grad():
            arguments = stock.backbone._passes.of_layer(index, alone) | {family.cache: recorded}
            window = family.window(backbone.config, index)
            near = torch.ones(text, text, dtype=torch.bool)
            if window is not None:
                near = (torch.arange(text)[:, None] - torch.arange(text)).abs() < window
            mask = additive((near.tril() if causal else near)[None, None], h.dtype)
            above = family.call(stock.backbone.layers[index], h, mask, **arguments)
        prefix = ((), ())
        if backbone.prefix is not None:
            prefix = tuple([x[index - backbone.layer + 1][None]] for x in backbone.prefix.parameters())
        seen = sees(text, p, position, causal, window, places)
        seen = torch.nn.functional.pad(seen, (0 if backbone.prefix is None else backbone.prefix.length, 0), value=True)
        arguments = backbone._passes.of_layer(index, given) | {family.cache: SwappedKeys(recorded.found, prefix)}
        sequence = torch.cat([h, active], 1)
        out = family.call(backbone.layers[index], sequence, additive(seen[None, None], h.dtype), **arguments)
        h, active = above, out[:, text:]
    if isinstance(method, LadderSideTuning):  # over what the frozen layers make of the active tokens
        active = method._beside([*beside, active], None)
    return backbone.finish(active[0, p:])


def pair(family, name="lpt", attention="eager", layer=2, **settings):
    """A read-only method, and the stock model that it is put on."""
    settings = SETTINGS.get(name, {}) | {"read_only": True, **settings}
    if name not in FROM_THE_INPUT:
        settings["layer"] = layer
    model, plain = trained_model(family, attention), trained_model(family)
    torch.manual_seed(1)
    method = stir(build_method(name, model, **settings).eval(), 0.3)
    return method, LateMethod(plain, method.backbone.layer)


def rows_of(ids, mask):
    return [row[: int(n)].tolist() for row, n in zip(ids, mask.sum(1), strict=True)]


def gradients(method, out):
    found = torch.autograd.grad(out.square().sum(), list(trained(method).values()), allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


# The definition


@pytest.mark.parametrize(("shape", "attention"), attentions(READABLE))
def test_with_nothing_trained_and_no_prompt_it_is_the_stock_model(shape, attention):
    model = trained_model(shape, attention)
    ids, mask = token_batch(LENGTHS)
    position = mask.sum(1) - 1 if model_type(shape) in DECODERS else torch.tensor([4, 1, 9, 0])
    expected = model(input_ids=ids, attention_mask=mask).logits[torch.arange(4), position]
    for layer in (1, 3, LAYERS):
        found = LateMethod(model, layer, read_only=True)(ids, mask, position)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("shape", "attention"), attentions(READABLE))
def test_a_prompt_gives_the_states_and_gradients_of_the_plain_implementation(shape, attention):
    """Rows padded to one another, against each row by itself."""
    method, stock = pair(shape, attention=attention, prompt_length=PROMPT, bottleneck=4)
    ids, mask = token_batch(LENGTHS)
    position = mask.sum(1) - 1 if method.backbone.causal else torch.tensor([4, 1, 9, 0])
    found = method.read_out(method.read(ids, mask), position)
    each = [plainly(method, stock, row, int(p)) for row, p in zip(rows_of(ids, mask), position, strict=True)]
    expected = torch.cat(each)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(gradients(method, found), gradients(method, expected), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", [*SETTINGS, "zero_shot"])
@pytest.mark.parametrize("family", ["roberta", "gpt2", "qwen2"])
def test_so_it_is_with_every_method(name, family):
    if name == "bitfit" and family == "qwen2":
        pytest.skip("few biases")
    method, stock = pair(family, name)
    ids, mask = token_batch(LENGTHS)
    position = readout(family, mask)
    found = method.read_out(method.read(ids, mask), position)
    each = [plainly(method, stock, row, int(p)) for row, p in zip(rows_of(ids, mask), position, strict=True)]
    torch.testing.assert_close(found, torch.cat(each), atol=2e-5, rtol=1e-4)
    if name != "zero_shot":
        found, expected = gradients(method, found), gradients(method, torch.cat(each))
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
        assert all(g.any() for g in found)  # of all that is trained; `gradients` asks for no other


@pytest.mark.parametrize("generator", ["npg", "appg", "mppg", "phm", "none"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_every_generator_reads_the_text_and_writes_a_prompt(family, generator):
    method, stock = pair(family, prompt_length=PROMPT, bottleneck=4, generator=generator)
    ids, mask = token_batch(LENGTHS)
    position = readout(family, mask)
    found = method.read_out(method.read(ids, mask), position)
    each = [plainly(method, stock, row, int(p)) for row, p in zip(rows_of(ids, mask), position, strict=True)]
    torch.testing.assert_close(found, torch.cat(each), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "attention"), attentions(["gpt2", "mistral", "gemma2"]))
@pytest.mark.parametrize("name", ["lpt", "lora"])
def test_each_answer_sees_the_text_the_prompt_and_itself(family, attention, name):
    """Answers as branches behind one text, against a plain pass for each."""
    method, stock = pair(family, name, attention)
    answers = [[20, 21], [23, 17, 24, 30], [25]]
    tokens, kinds = branches(answers)
    texts = rows_of(*token_batch(LENGTHS))
    rows = [Encoded([*text, *tokens], len(text) - 1, False, tuple(kinds)) for text in texts]
    split = EncodedSplit(rows, LabeledRows([("",)] * 4, [0, 1, 2, 0], list(range(4))))
    head = build_head("continuation", method.backbone, 3, answers)
    found = Scorer(method, head).scores(split.collate([(i, 1.0) for i in range(4)], 1))
    for text, scores in zip(texts, found, strict=True):
        for answer, score in zip(answers, scores, strict=True):
            z = plainly(method, stock, text, len(text) - 1, answer[:-1])
            foretold = method.backbone.vocabulary_logits(z).log_softmax(-1)
            expected = foretold[torch.arange(len(answer)), torch.tensor(answer)].mean()
            torch.testing.assert_close(score, expected, atol=3e-5, rtol=1e-4)


# What is read is a constant


@pytest.mark.parametrize("name", [*SETTINGS])
@pytest.mark.parametrize("family", ["roberta", "qwen2"])
def test_what_is_read_does_not_depend_on_what_is_trained_bit_for_bit(name, family):
    if name == "bitfit" and family == "qwen2":
        pytest.skip("few biases")
    method, _ = pair(family, name)
    ids, mask = token_batch(LENGTHS)
    before = method.read(ids, mask)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)
    method.train().from_context(before, readout(family, mask)).square().sum().backward()
    optimizer.step()
    stock = LateMethod(trained_model(family), method.backbone.layer, read_only=True)
    for after in (method.eval().read(ids, mask), stock.read(ids, mask)):
        assert torch.equal(before.states, after.states)
        for old, new in zip(before.keys_values, after.keys_values, strict=True):
            assert torch.equal(old[0], new[0])
            assert torch.equal(old[1], new[1])


@pytest.mark.parametrize("family", SOME)
def test_padding_on_either_side_and_neighbors_change_nothing(family):
    method, _ = pair(family, prompt_length=PROMPT, bottleneck=4)
    ids, mask = token_batch(LENGTHS)
    position = readout(family, mask) if family in ("bert", "gpt2") else mask.sum(1) - 1
    expected = method(ids, mask, position)
    wide = torch.nn.functional.pad(ids, (5, 4), value=1)
    found = method(wide, torch.nn.functional.pad(mask, (5, 4)), position + 5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    alone = method(ids[1:2, :3], None, position[1:2])
    torch.testing.assert_close(alone, expected[1:2], atol=1e-5, rtol=1e-5)


def test_read_and_from_context_are_forward_and_from_trunk_reads_on():
    model = LatePromptModel(tiny_model("gpt2"), 3, PROMPT, bottleneck=4, read_only=True)
    ids, mask = token_batch(LENGTHS)
    position = mask.sum(1) - 1
    context = model.read(ids, mask)
    assert isinstance(context, Context)
    assert torch.equal(model.from_context(context, position), model(ids, mask, position))
    assert torch.equal(model.from_trunk(model.trunk(ids, mask), mask, position), model(ids, mask, position))
    with pytest.raises(LptError, match=r"token_logits: with read_only=True"):
        model.token_logits(ids, mask, position)


def test_dropout_never_reaches_what_is_read():
    model = LatePromptModel(tiny_model("gpt2"), 2, PROMPT, read_only=True, backbone_dropout=True).train()
    ids, mask = token_batch(LENGTHS)
    position = mask.sum(1) - 1
    first, second = model.read(ids, mask), model.read(ids, mask)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first.keys_values, second.keys_values, strict=True))
    assert not torch.equal(model.from_context(first, position), model.from_context(first, position))


def test_a_family_that_cannot_be_read_only_says_which_can():
    with pytest.raises(LptError, match=r"deberta \(deberta\) cannot be read once, .* these can: bert, distilbert,"):
        LateMethod(tiny_model("deberta"), 2, read_only=True)


def test_a_method_that_trains_weights_without_saying_so_is_refused():
    class Norms(LateMethod):
        def __init__(self, model, layer=None, **late):
            super().__init__(model, layer, **late)
            self.backbone.upper_layers[0].requires_grad_(True)

    from lpt.registry import METHODS

    METHODS._classes["norms"] = Norms
    try:
        build_method("norms", tiny_model("gpt2"))
        with pytest.raises(LptError, match=r"its class must say `trains_backbone = True`"):
            build_method("norms", tiny_model("gpt2"), read_only=True)
    finally:
        del METHODS._classes["norms"]


# What is kept of a text

TEXTS = (5, 1, 12, 7, 7, 3, 30, 2)


def split_of(lengths=TEXTS, causal=True):
    generator = torch.Generator().manual_seed(0)
    rows = [
        Encoded(torch.randint(3, 50, (n,), generator=generator).tolist(), n - 1 if causal else n // 2, False)
        for n in lengths
    ]
    return EncodedSplit(rows, LabeledRows([("",)] * len(rows), [0] * len(rows), list(range(len(rows)))))


def kept(method, split, folder, mode="disk", lines=None, **options):
    """What a cache of its own keeps of a split, and the cache."""
    cache = TrunkCache(mode, folder=folder, say=(lines if lines is not None else []).append, **options)
    cache.prepare(method.backbone, {"train": split})
    states = cache.states(method.backbone, split, "train", pad_id=1)
    return Kept(states, cache.keys_values(method.backbone, split, "train", 1, states)), cache


def scores(method, split, what, rows=(3, 6, 1, 0)):
    batch = split.collate([(i, 1.0) for i in rows], 1, what)
    return Scorer(method, build_head("label_words", method.backbone, 2, [[5], [6]])).scores(batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", READABLE)
def test_kept_read_again_and_not_kept_is_the_same(shape, dtype, tmp_path):
    torch.manual_seed(0)
    model = tiny_model(shape).to(dtype)
    method = LatePromptModel(model, 2, PROMPT, bottleneck=4, read_only=True).eval()
    split = split_of(causal=method.backbone.causal)
    expected = scores(method, split, None)
    on_disk, cache = kept(method, split, tmp_path / "disk")
    assert cache.facts.keys_values
    in_memory, _ = kept(method, split, tmp_path / "memory", "memory")
    states_alone = Kept(on_disk.states)
    tolerance = 1e-6 if dtype is torch.float32 else 0.1
    for what in (on_disk, in_memory, states_alone):
        torch.testing.assert_close(scores(method, split, what), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("shape", "attention"), attentions(["bert", "gemma2", "mistral"]))
def test_gradients_from_what_is_kept_are_those_of_reading(shape, attention, tmp_path):
    method, _ = pair(shape, attention=attention, prompt_length=PROMPT, bottleneck=4)
    split = split_of(causal=method.backbone.causal)
    what, _ = kept(method, split, tmp_path)
    found, expected = (gradients(method, scores(method, split, each)) for each in (what, None))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_one_layers_keys_and_values_serve_every_layer_above_and_every_method(tmp_path):
    split = split_of()
    kept(pair("llama", "lora", layer=2)[0], split, tmp_path)
    for name, layer in (("lpt", 2), ("adapter", 3), ("p_tuning_v2", LAYERS), ("full", 2)):
        method, _ = pair("llama", name, layer=layer)
        what, cache = kept(method, split, tmp_path)
        assert cache.facts.reused.count("train") == (2 if layer == 2 else 1)  # the states are those entering k
        assert len(what.keys_values.row(0)) == LAYERS - layer + 1
        torch.testing.assert_close(scores(method, split, what), scores(method, split, None), atol=1e-6, rtol=1e-5)
    assert not kept(pair("llama", "lora", layer=1)[0], split, tmp_path)[1].facts.reused


def test_rows_are_kept_one_after_the_other_without_padding(tmp_path):
    method, _ = pair("llama")
    what, _ = kept(method, split_of(), tmp_path)
    assert what.keys_values.numbers.shape == (sum(TEXTS) * 3 * 2 * 1 * 8,)  # 3 layers, a head of 8
    row = torch.tensor([split_of().rows[2].input_ids])
    for found, expected in zip(what.keys_values.row(2), method.read(row).keys_values, strict=True):
        torch.testing.assert_close(found[0], expected[0][0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found[1], expected[1][0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("harm", ["damaged", "truncated", "foreign"])
def test_keys_and_values_that_are_not_what_they_say_are_read_again(harm, tmp_path):
    method, split = pair("llama")[0], split_of()
    expected, _ = kept(method, split, tmp_path)
    expected = expected.keys_values.numbers.clone()
    (place,) = [p for p in tmp_path.glob("*/numbers.bin") if p.stat().st_size == expected.nbytes]
    data = bytearray(place.read_bytes())
    if harm == "damaged":
        data[100] ^= 1
    elif harm == "truncated":
        data = data[:-64]
    else:
        entry = place.with_name("entry.json")
        entry.write_text(entry.read_text().replace("keys and values from layer 2", "keys and values from layer 3"))
    place.write_bytes(data)
    lines = []
    again, cache = kept(method, split, tmp_path, lines=lines)
    assert cache.facts.built == ["train"]
    assert any("is damaged and is computed again" in line for line in lines)
    assert torch.equal(again.keys_values.numbers, expected)


@pytest.mark.parametrize("mode", ["auto", "disk", "memory"])
def test_keys_and_values_beyond_the_budget_leave_the_states_and_a_word(mode, tmp_path):
    method, split, lines = pair("llama")[0], split_of(), []
    states = sum(TEXTS) * HIDDEN * 4
    what, cache = kept(method, split, tmp_path, mode, lines, max_bytes=states)
    assert what.keys_values is None
    assert not cache.facts.keys_values
    (line,) = lines
    assert "4 kB of states entering layer 2; keys and values of 2..4 would take 13 kB, more than the budget" in line
    assert "every step reads the text above again, without gradient" in line
    torch.testing.assert_close(scores(method, split, what), scores(method, split, None), atol=1e-6, rtol=1e-5)


def test_on_a_gpu_the_states_alone_are_kept_since_it_reads_faster_than_it_is_told(tmp_path):
    method, lines = pair("llama")[0], []
    method.to("meta")  # not the CPU, as a GPU
    plan = TrunkCache("disk", folder=tmp_path, say=lines.append).prepare(method.backbone, {"train": split_of()})
    assert (plan.mode, plan.keys_values) == ("disk", False)
    assert "layer 2; a GPU reads the text above faster than keys and values of 2..4 are copied to it" in lines[0]


def test_at_layer_1_there_is_something_to_keep(tmp_path):
    what, cache = kept(pair("llama", "lora", layer=1)[0], split_of(), tmp_path)
    assert cache.plan.mode == "disk"
    assert len(what.keys_values.row(0)) == LAYERS
