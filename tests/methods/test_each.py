"""What single methods promise: the equations of their papers, by other means."""

import sys

import peft
import pytest
import torch
import torch.nn.functional as F
from method_zoo import ANATOMY, PROMPT, RANK, WITHOUT_BIASES, build, readout, stir, trained
from tiny import LAYERS, tiny_model, token_batch

from lpt.backbones.layers import middle_layer
from lpt.errors import LptError
from lpt.methods import build_method

LENGTHS = (7, 3, 10, 1)
FAMILIES = tuple(ANATOMY)


@pytest.fixture
def inputs():
    return token_batch(LENGTHS)


def read(logits, family, mask, prompt_length=0):
    return logits[torch.arange(len(mask)), readout(family, mask) + prompt_length]


def ours(method, family, inputs):
    return method(*inputs, readout(family, inputs[1]))


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


# LoRA


@pytest.mark.parametrize("name", ["lora", "lpt_lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_at_its_initial_value_lora_changes_not_a_bit(family, name, inputs):
    method = build(name, family)
    without = build("lpt" if name == "lpt_lora" else "zero_shot", family)
    assert torch.equal(ours(method, family, inputs), ours(without, family, inputs))
    assert not torch.equal(ours(stir(method), family, inputs), ours(without, family, inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_is_pefts_with_the_same_tensors(family, inputs):
    method = stir(build("lora", family, alpha=6))
    stock = peft.get_peft_model(tiny_model(family), peft.LoraConfig(r=RANK, lora_alpha=6)).eval()
    theirs = {n.removeprefix("base_model.model."): p for n, p in stock.named_parameters() if p.requires_grad}
    assert theirs.keys() == trained(method).keys()
    with torch.no_grad():
        for name, p in trained(method).items():
            theirs[name].copy_(p)
    expected = stock(input_ids=inputs[0], attention_mask=inputs[1]).logits
    close(ours(method, family, inputs), read(expected, family, inputs[1]))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_targets_are_all_linear_maps_of_the_layers(family):
    anatomy = ANATOMY[family]
    maps = {name.partition(".lora_")[0] for name in trained(build("lora", family, 3, targets="all"))}
    paths = (*anatomy.attention, *anatomy.feed_forward)
    assert maps == {f"{anatomy.layers}.{i}.{path}" for i in range(2, LAYERS) for path in paths}


def test_updates_are_scaled_by_alpha_over_r(inputs):
    half, whole = (stir(build("lora", "llama", alpha=alpha, rank=1)) for alpha in (1, 2))
    with torch.no_grad():
        for name, p in trained(whole).items():
            p.copy_(trained(half)[name] / (2 if ".lora_B." in name else 1))
    close(ours(whole, "llama", inputs), ours(half, "llama", inputs))


def test_loras_dropout_is_on_what_the_updates_read_and_in_training_alone(inputs):
    method, plain = build("lora", "llama", dropout=0.5), build("lora", "llama")
    assert torch.equal(ours(method.train(), "llama", inputs), ours(plain, "llama", inputs))  # of zeros
    stir(method)
    assert not torch.equal(ours(method, "llama", inputs), ours(method, "llama", inputs))
    method.eval()
    assert torch.equal(ours(method, "llama", inputs), ours(method, "llama", inputs))


# Adapters


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_refine_what_the_linear_maps_before_the_residuals_give(family, layer, placement, inputs):
    """The stock model, with the same sum put behind these maps by forward hooks."""
    method = stir(build("adapter", family, layer, placement=placement))
    tensors, stock = trained(method), tiny_model(family)
    paths = ANATOMY[family].sublayers[-1:] if placement == "pfeiffer" else ANATOMY[family].sublayers

    def refine(at):
        def hook(module, given, y):
            down = F.gelu(y @ tensors[f"{at}.down.weight"].T + tensors[f"{at}.down.bias"])
            return y + down @ tensors[f"{at}.up.weight"].T + tensors[f"{at}.up.bias"]

        stock.get_submodule(at).register_forward_hook(hook)

    places = [f"{ANATOMY[family].layers}.{i}.{path}" for i in range(layer - 1, LAYERS) for path in paths]
    assert {name.rsplit(".", 2)[0] for name in tensors} == set(places)
    for at in places:
        refine(at)
    expected = stock(input_ids=inputs[0], attention_mask=inputs[1]).logits
    close(ours(method, family, inputs), read(expected, family, inputs[1]))


def test_adapters_start_near_the_identity(inputs):
    without = ours(build("zero_shot", "llama"), "llama", inputs)
    distance = (ours(build("adapter", "llama"), "llama", inputs) - without).abs().max()
    assert 0 < distance < 0.1 * without.abs().max()


@pytest.mark.parametrize("layers", [4, 5])
def test_adapterdrop_begins_in_the_middle_unless_told(layers):
    for layer, begins in ((None, middle_layer(layers)), (2, 2)):
        method = build_method("adapterdrop", tiny_model("bert", num_hidden_layers=layers), layer=layer)
        found = {int(name.split(".")[3]) for name in trained(method)}
        assert found == set(range(begins - 1, layers))


# Prompts and prefixes


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_prompt_tuning_is_pefts_with_the_same_prompt(family, inputs):
    method = stir(build("prompt_tuning", family))
    method.backbone.config.sliding_window = None
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PROMPT)
    stock = peft.get_peft_model(tiny_model(family, sliding_window=None), config).eval()
    with torch.no_grad():
        stock.prompt_encoder.default.embedding.weight.copy_(method.generator.prompt)
    expected = stock(input_ids=inputs[0], attention_mask=inputs[1]).logits
    close(ours(method, family, inputs), read(expected, family, inputs[1], PROMPT))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_p_tuning_v2_is_pefts_prefix_tuning_with_the_same_keys_and_values(family, inputs):
    method = stir(build("p_tuning_v2", family), scale=1)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PROMPT)
    stock = peft.get_peft_model(tiny_model(family, sliding_window=None), config).eval()
    method.backbone.config.sliding_window = None
    # [layers, heads, N, head size] each; peft keeps [N, layers * (keys, values) * heads * head size]
    pairs = torch.stack([method.backbone.prefix.keys, method.backbone.prefix.values], dim=1)
    with torch.no_grad():
        stock.prompt_encoder.default.embedding.weight.copy_(pairs.permute(3, 0, 1, 2, 4).flatten(1))
    expected = stock(input_ids=inputs[0], attention_mask=inputs[1]).logits
    close(ours(method, family, inputs), read(expected, family, inputs[1]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_summary_of_s_idpg_is_the_whole_frozen_models_without_prompt_or_dropout(family, inputs, monkeypatch):
    method = stir(build("s_idpg", family, backbone_dropout=True)).train()
    stock, seen, leaving = tiny_model(family), [], []
    stock.get_submodule(ANATOMY[family].layers)[-1].register_forward_hook(
        lambda module, given, out: leaving.append(out if torch.is_tensor(out) else out[0])
    )
    stock(input_ids=inputs[0], attention_mask=inputs[1])
    write = method.generator.write
    monkeypatch.setattr(method.generator, "write", lambda h, *rest: seen.append(h) or write(h, *rest))
    ours(method, family, inputs)
    ((seen,), (leaving,)) = seen, leaving
    assert not seen.requires_grad
    close(seen[inputs[1].bool()], leaving[inputs[1].bool()])
    assert method.backbone.training  # again


# Prompts in many layers


def copied(into, given):
    """A method with the tensors of another, as far as it has them."""
    tensors = trained(given)
    with torch.no_grad():
        for name, p in trained(into).items():
            p.copy_(tensors[name])
    return into


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_gates_choose_between_the_prompt_of_the_layer_below_and_a_new_one(family, read_only, inputs):
    gated = stir(build("spt", family, 2, read_only=read_only))
    once, anew = (copied(build(name, family, 2, read_only=read_only), gated) for name in ("lpt", "deep_lpt"))
    assert len(gated.gates) == LAYERS - 2
    for gate, same in ((-40.0, once), (40.0, anew)):
        with torch.no_grad():
            gated.gates.fill_(gate)
        close(ours(gated, family, inputs), ours(same, family, inputs))
    assert (ours(once, family, inputs) - ours(anew, family, inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_new_prompt_is_written_from_the_states_that_would_enter_its_layer(family, inputs):
    """With a single new one, at layer L: the pass of a late prompt up to there, and layer L over the new prompt."""
    ids, mask = inputs
    deep = stir(build("deep_lpt", family, 2, every=LAYERS - 2))
    assert set(deep.deeper) == {str(LAYERS)}
    position, backbone = readout(family, mask), deep.backbone
    h = deep.trunk(ids, mask)
    below = torch.cat([deep.generate(h, mask, position), h], 1)
    below = backbone.run(below, mask, 2, LAYERS - 1, PROMPT)
    text = below[:, PROMPT:]
    new = deep.deeper[str(LAYERS)](text, *deep.context(text, mask, position))
    out = backbone.run(torch.cat([new, text], 1), mask, LAYERS, LAYERS, PROMPT)[:, PROMPT:]
    expected = backbone.vocabulary_logits(backbone.finish(out[torch.arange(len(ids)), position]))
    close(ours(deep, family, inputs), expected)


# Beside the backbone


@pytest.mark.parametrize("rungs", ["linear", "average"])
@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_ladder_is_its_equations_over_the_stock_models_states(family, layer, rungs, inputs):
    ids, mask = inputs
    method = build("ladder", family, layer, rungs=rungs)
    stock = tiny_model(family)
    close(ours(method, family, inputs), read(stock(input_ids=ids, attention_mask=mask).logits, family, mask))
    stir(method, 0.3)
    leaving = []
    stock.get_submodule(ANATOMY[family].layers)[-1].register_forward_hook(
        lambda module, given, out: leaving.append(out if torch.is_tensor(out) else out[0])
    )
    entering = stock(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for row, length in enumerate(mask.sum(1).tolist()):  # one by one, without padding
        states = [h[row, :length] for h in (*entering[layer - 1 : LAYERS], leaving[0])]
        s = method.down[0](states[0])
        for i, h in enumerate(states[1:]):
            mu = torch.sigmoid(method.gates[i] / 0.1)
            s = mu * s + (1 - mu) * method.down[i + 1](h)
            s = side_layer(method.layers[i], s, method.backbone.causal)
        at = readout(family, mask)[row]
        z = method.backbone.finish((states[-1] + method.up(s))[at])
        close(ours(method, family, inputs)[row], method.backbone.vocabulary_logits(z))


def side_layer(layer, s, causal):
    """A transformer layer by PyTorch's own attention, with the same tensors."""
    attention = torch.nn.MultiheadAttention(s.shape[1], layer.heads, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(layer.qkv.weight)
        attention.in_proj_bias.copy_(layer.qkv.bias)
        attention.out_proj.load_state_dict(layer.out.state_dict())
    x, hidden = layer.norm(s)[None], torch.ones(len(s), len(s)).triu(1).bool()
    s = s + attention(x, x, x, attn_mask=hidden if causal else None, need_weights=False)[0][0]
    return s + layer.feed_forward(s)


@pytest.mark.parametrize("read_only", [False, True])
def test_no_gradient_passes_through_the_backbone_beside_a_ladder(read_only, inputs):
    method = stir(build("ladder", "llama", read_only=read_only)).train()
    flowing = []
    for layer in method.backbone.layers:
        layer.register_forward_hook(lambda module, given, out: flowing.append(out.requires_grad))
    ours(method, "llama", inputs).sum().backward()
    assert flowing
    assert not any(flowing)


@pytest.mark.parametrize("pool", ["readout", "mean", "attention"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_state_probe_pools_what_enters_its_layer_and_computes_nothing_above(family, pool, inputs):
    ids, mask = inputs
    method = stir(build("state_probe", family, 3, pool=pool), 3)
    entering = tiny_model(family)(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[2]
    for layer in method.backbone.layers[2:]:
        layer.register_forward_hook(lambda *_: pytest.fail("a layer above was computed"))
    found = method.read_out(method.read(ids, mask), readout(family, mask))
    for row, length in enumerate(mask.sum(1).tolist()):
        h = F.layer_norm(entering[row, :length], (entering.shape[-1],))
        weights = torch.ones(length) / length
        if pool == "attention":
            weights = (h @ method.query / h.shape[1] ** 0.5).softmax(0)
        z = h[readout(family, mask)[row]] if pool == "readout" else weights @ h
        close(found[row], F.layer_norm(z, z.shape))


# The backbone's own weights


@pytest.mark.parametrize("family", WITHOUT_BIASES)
def test_bitfit_is_refused_where_there_are_no_biases(family):
    with pytest.raises(LptError, match=f"^{family} has no biases from layer 1 on$"):
        build("bitfit", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vocabulary_projection_stays_unless_it_is_the_embedding_and_that_is_trained(family):
    for layer in (None, 3):
        method = build("full", family, layer)
        projection = method.backbone.model.get_output_embeddings()
        tied = projection.weight is method.backbone.model.get_input_embeddings().weight
        assert projection.weight.requires_grad == (tied and layer is None)
        assert projection.bias is None or not projection.bias.requires_grad


@pytest.mark.parametrize("dropout", [False, True])
def test_full_fine_tuning_trains_the_embeddings_only_where_no_layer_is_given_with_dropout_if_asked(dropout, inputs):
    whole, late = (build("full", "bert", layer, backbone_dropout=dropout).train() for layer in (None, 1))
    assert [method.backbone.base.embeddings.training for method in (whole, late)] == [dropout, False]
    assert [method.trunk(*inputs).requires_grad for method in (whole, late)] == [True, False]
    for method in (whole, late):
        assert {m.training for layer in method.backbone.layers for m in layer.modules()} == {dropout}


def test_an_encoder_without_lm_head_is_fine_tuned_without_its_pooler(inputs):
    from transformers import AutoModel

    model = AutoModel.from_config(tiny_model("bert").config, attn_implementation="eager").eval()
    assert any(name.startswith("pooler") for name, _ in model.named_parameters())
    method = build_method("full", model)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        "pooler.dense.weight",
        "pooler.dense.bias",
    }
    z = method.read_out(method.read(*inputs), readout("bert", inputs[1]))
    z.square().sum().backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


# The frozen backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_backbone_is_the_stock_model_whatever_the_layer_and_trains_nothing(family, inputs):
    stock = tiny_model(family)(input_ids=inputs[0], attention_mask=inputs[1]).logits
    for name in ("zero_shot", "linear_probe"):
        for layer in (None, 1, 2):
            method = build(name, family, layer)
            assert method.backbone.layer == (layer or LAYERS)
            assert trained(method) == {}
            found = ours(method, family, inputs)
            assert not found.requires_grad
            close(found, read(stock, family, inputs[1]))


# What cannot be


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lora", {"targets": "atention"}, r"method.targets='atention' is not known; choose one of attention, all; did"),
        ("lpt_lora", {"targets": "q"}, r"method.targets='q' is not known; choose one of attention, all$"),
        ("adapter", {"placement": "pfeifer"}, r"method.placement='pfeifer' is not known.*did you mean 'pfeiffer'"),
        ("ladder", {"reduction": 5}, r"method.reduction=5 does not divide the hidden size \d+; choose one that does"),
        ("ladder", {"rungs": "x"}, r"method.rungs='x' is not known; choose one of linear, average$"),
        ("state_probe", {"pool": "x"}, r"method.pool='x' is not known; choose one of readout, mean, attention$"),
        ("adapterdrop", {"placement": "x"}, r"method.placement='x' is not known; choose one of houlsby, pfeiffer$"),
    ],
)
def test_settings_that_do_not_exist_are_refused(name, settings, message):
    with pytest.raises(LptError, match=message):
        build(name, "bert", **settings)


@pytest.mark.parametrize("name", ["lora", "lpt_lora"])
def test_without_peft_it_is_said_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LptError, match=r"LoRA is done by peft, which is not installed: pip install 'lpt\[peft\]'"):
        build(name, "llama")


def a_family_that_tells_little(monkeypatch, **missing):
    from dataclasses import replace

    from lpt.backbones.families import FAMILIES as ROWS

    monkeypatch.setitem(ROWS, "llama", replace(ROWS["llama"], **missing))


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        (
            "adapter",
            {"sublayers": None},
            r"llama \(llama\) cannot have adapters: its family.*does not tell where they go",
        ),
        ("p_tuning_v2", {"keys_values": None}, r"llama \(llama\) cannot have prefixes: its family.*keys and values"),
    ],
)
def test_a_family_that_does_not_tell_what_a_method_needs_is_refused(name, missing, message, monkeypatch):
    a_family_that_tells_little(monkeypatch, **missing)
    with pytest.raises(LptError, match=message):
        build(name, "llama")


def test_a_family_for_which_peft_chooses_nothing_is_pointed_to_all_maps(monkeypatch):
    from peft.utils import constants

    monkeypatch.delitem(constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, "llama")
    with pytest.raises(LptError, match=r"peft chooses no maps for llama models; use method.targets=all$"):
        build("lora", "llama")
    assert trained(build("lora", "llama", targets="all"))
