"""head=continuation: whole answers scored in one pass, against one plain pass of the stock model for each of them."""

import json

import places
import pytest
import torch
from safetensors.torch import load_file
from tiny import DECODERS, attentions, tiny_model
from transformers import AutoModelForCausalLM

from lpt.backbones.split import SplitBackbone
from lpt.cache.trunk import TrunkCache
from lpt.classifier import Scorer
from lpt.data.batches import EncodedSplit
from lpt.data.ragged import Kept
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded
from lpt.errors import LptError
from lpt.heads import branches, build_head
from lpt.late_prompt import LatePromptModel
from lpt.methods import build_method

TEXTS = [[5, 9, 12, 7, 31], [8, 30, 31, 6, 11, 14, 40, 22, 13], [19]]
ANSWERS = [[20, 21], [23, 17, 24, 30], [25]]  # of different lengths, one of them a single token
GOLDEN = sorted(places.GOLDEN.glob("gpt2_*"))


def split_of(texts, answers):
    """Rows as a template makes them: a text of class 0, 1, ... each, and the answers' branches behind it."""
    tokens, kinds = branches(answers)
    rows = [Encoded([*text, *tokens], len(text) - 1, False, tuple(kinds)) for text in texts]
    return EncodedSplit(rows, LabeledRows([("",)] * len(rows), list(range(len(rows))), list(range(len(rows)))))


def batch_of(texts, answers, kept=None):
    split = split_of(texts, answers)
    return split.collate([(i, 1.0) for i in range(len(texts))], 1, kept)


def scorer_of(method, answers=ANSWERS):
    return Scorer(method, build_head("continuation", method.backbone, len(answers), answers)).eval()


def likelihood(logits_TV, text, answer):
    """Mean log-likelihood of an answer's tokens, from the logits at every token of text and answer."""
    foretold = logits_TV[len(text) - 1 : len(text) + len(answer) - 1].log_softmax(-1)
    return foretold[torch.arange(len(answer)), torch.tensor(answer)].mean()


def in_passes(logits_of, texts=TEXTS, answers=ANSWERS):
    """Scores `[B, C]`, a pass for each text and each answer."""
    return torch.stack(
        [
            torch.stack(
                [
                    likelihood(logits_of(torch.tensor([text + answer]), len(text) - 1)[0], text, answer)
                    for answer in answers
                ]
            )
            for text in texts
        ]
    )


@pytest.mark.parametrize(("family", "attention"), attentions(DECODERS))
def test_scores_are_the_mean_log_likelihoods_of_a_plain_pass_for_each_answer(family, attention):
    stock = tiny_model(family)
    expected = in_passes(lambda ids, position: stock(input_ids=ids).logits)
    scorer = scorer_of(build_method("zero_shot", tiny_model(family, attention)))
    for texts in (TEXTS, TEXTS[:1]):  # padded, and not
        found = scorer.scores(batch_of(texts, ANSWERS))
        torch.testing.assert_close(found, expected[: len(texts)], atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lpt", {"layer": 2, "prompt_length": 3, "bottleneck": 4}),
        ("lpt", {"layer": 2, "prompt_length": 3, "bottleneck": 4, "generator": "appg"}),
        ("prompt_tuning", {"prompt_length": 3}),
        ("p_tuning_v2", {"layer": 2, "prompt_length": 3}),
        ("s_idpg", {"prompt_length": 3, "bottleneck": 4}),
        ("lpt_lora", {"layer": 3, "prompt_length": 3, "bottleneck": 4}),
        ("adapter", {"layer": 4, "bottleneck": 4}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_so_they_are_with_every_kind_of_method(family, name, settings):
    """What writes the prompt sees the text alone."""
    method = build_method(name, tiny_model(family), **settings).eval()

    def logits_of(ids, position):
        return method.token_logits(ids, None, torch.tensor([position]))

    found = scorer_of(method).scores(batch_of(TEXTS, ANSWERS))
    torch.testing.assert_close(found, in_passes(logits_of), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_cached_states_give_the_scores_of_the_trunk_computed_anew(family):
    scorer, split = scorer_of(LatePromptModel(tiny_model(family), 3, 3, bottleneck=4)), split_of(TEXTS, ANSWERS)
    cache = TrunkCache("memory", say=lambda line: None)
    cache.prepare(scorer.method.backbone, {"train": split})
    kept = Kept(cache.states(scorer.method.backbone, split, "train", pad_id=1))
    expected = scorer.scores(batch_of(TEXTS, ANSWERS))
    scorer.method.trunk = None  # not to be computed
    torch.testing.assert_close(scorer.scores(batch_of(TEXTS, ANSWERS, kept)), expected, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_right_answers_mean_negative_log_likelihood():
    scorer, batch = scorer_of(build_method("zero_shot", tiny_model("llama"))), batch_of(TEXTS, ANSWERS)
    expected = -scorer.scores(batch).diagonal()
    torch.testing.assert_close(scorer.losses(batch), expected)


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_the_loss_of_an_answer_is_the_references(folder):
    """One text after the other: the answer of each is that of another class."""
    settings = json.loads((folder / "case.json").read_text())
    inputs, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")
    names = {"naive": "npg", "avg_pool": "appg", "max_pool": "mppg", "static": "none"}
    method = LatePromptModel(
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager"),
        settings["lpt_layer"],
        settings["prompt_length"],
        names[settings["generator"]],
        settings["bottleneck"],
    )
    method.generator.load_state_dict(load_file(folder / "generator.safetensors"))
    rows = list(zip(inputs["input_ids"].long(), inputs["loss_mask"].bool(), inputs["answer_position"], strict=True))
    texts = [ids[: end + 1].tolist() for ids, _, end in rows]
    answers = [ids[mask].tolist() for ids, mask, _ in rows]
    scorer = scorer_of(method, answers)
    batch = batch_of(texts, answers)
    torch.testing.assert_close(scorer.losses(batch), expected["per_example_loss"], atol=1e-5, rtol=1e-4)


def test_answers_of_one_token_are_scored_as_label_words_are_but_for_a_constant():
    method, words = build_method("zero_shot", tiny_model("llama")), [[20], [23], [25]]
    found = scorer_of(method, words).scores(batch_of(TEXTS, words))
    head = build_head("label_words", method.backbone, 3, words)
    expected = Scorer(method, head).scores(batch_of(TEXTS, words))
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1))


def test_a_score_is_the_mean_over_an_answers_tokens_each_foretold_by_the_one_before():
    backbone = SplitBackbone(tiny_model("llama"))
    head = build_head("continuation", backbone, 2, [[20, 3], [21, 3]])
    z = torch.randn(4, 3, backbone.hidden_size)
    with torch.no_grad():
        logits = backbone.vocabulary_logits(z).log_softmax(-1)
    first = logits[:, 0, [20, 21]]
    second = torch.stack([logits[:, 1, 3], logits[:, 2, 3]], dim=1)
    torch.testing.assert_close(head.scores(z, backbone), (first + second) / 2)


def test_gradients_reach_the_prompt_through_every_answer():
    scorer = scorer_of(LatePromptModel(tiny_model("gpt2"), 3, 3, bottleneck=4))
    slopes = []
    for c in range(len(ANSWERS)):
        scorer.zero_grad()
        scorer.scores(batch_of(TEXTS, ANSWERS))[:, c].sum().backward()
        slopes.append(scorer.method.generator.proj_up.weight.grad.clone())
        assert slopes[-1].any()
    assert not torch.allclose(slopes[0], slopes[1])


def test_the_head_trains_nothing_and_keeps_its_tokens_out_of_checkpoints():
    head = build_head("continuation", SplitBackbone(tiny_model("llama")), 3, ANSWERS)
    assert list(head.parameters()) == []
    assert head.state_dict() == {}


def test_scores_of_a_half_precision_backbone_are_float32():
    method = LatePromptModel(tiny_model("llama").to(torch.bfloat16), 2, 3, bottleneck=4)
    assert scorer_of(method).scores(batch_of(TEXTS, ANSWERS)).dtype == torch.float32


# What it costs


def test_six_labels_cost_one_pass_over_the_text_and_a_token_or_two_of_each(monkeypatch):
    answers = [[20 + i, 3] for i in range(6)]
    text = list(range(5, 25))
    scorer, tokens = scorer_of(build_method("zero_shot", tiny_model("llama")), answers), []
    embed = SplitBackbone.embed
    monkeypatch.setattr(
        SplitBackbone, "embed", lambda self, ids, mask: tokens.append(ids.numel()) or embed(self, ids, mask)
    )
    scorer.scores(batch_of([text], answers))
    assert tokens == [len(text) + 6]  # six passes: 6 * (len(text) + 1)


def test_an_answers_last_token_foretells_nothing_and_is_left_out():
    assert branches([[7, 8, 9], [5], [6, 9]]) == ([7, 8, 6], [2, 2, 4])
    assert branches([[7], [8]]) == ([], [])


# What cannot be


def test_an_encoder_is_pointed_to_label_words():
    with pytest.raises(
        LptError, match="head=continuation scores what follows a text, so it needs a decoder; use head="
    ):
        build_head("continuation", SplitBackbone(tiny_model("bert")), 3, ANSWERS)


def test_a_decoder_without_lm_head_cannot_score_answers():
    with pytest.raises(LptError, match=r"head=continuation needs a language-model head, which llama lacks"):
        build_head("continuation", SplitBackbone(tiny_model("llama").base_model), 3, ANSWERS)
