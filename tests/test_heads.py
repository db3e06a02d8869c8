import pytest
import torch
import torch.nn.functional as F
from tiny import HIDDEN, tiny_config, tiny_model
from torch import nn
from transformers import AutoModel

from lpt.backbones.split import SplitBackbone
from lpt.errors import LptError
from lpt.heads import build_head

WORDS = [40, 7, 12]
ANSWERS = [[word] for word in WORDS]
LABELS = torch.tensor([2, 0, 1, 2])


@pytest.fixture
def backbone():
    split = SplitBackbone(tiny_model("roberta"))
    nn.init.normal_(split.model.get_output_embeddings().bias)
    return split


@pytest.fixture
def z():
    return torch.randn(4, HIDDEN)


def test_label_words_is_a_softmax_over_their_tokens_alone(backbone, z):
    head = build_head("label_words", backbone, 3, ANSWERS)
    logits = backbone.vocabulary_logits(z)[:, WORDS]
    torch.testing.assert_close(head.scores(z, backbone), logits)
    torch.testing.assert_close(head.losses(z, LABELS, backbone), F.cross_entropy(logits, LABELS, reduction="none"))


def test_vocabulary_trains_on_all_tokens_and_decides_among_the_label_words(backbone, z):
    head = build_head("vocabulary", backbone, 3, ANSWERS)
    logits = backbone.vocabulary_logits(z)
    torch.testing.assert_close(head.scores(z, backbone), logits[:, WORDS])
    expected = F.cross_entropy(logits, torch.tensor(WORDS)[LABELS], reduction="none")
    torch.testing.assert_close(head.losses(z, LABELS, backbone), expected)


def test_linear_trains_h_times_c_plus_c_in_float32_over_any_backbone(backbone, z):
    head = build_head("linear", backbone, 3, None)
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == HIDDEN * 3 + 3
    assert head.scores(z.to(torch.bfloat16), backbone).dtype == torch.float32


@pytest.mark.parametrize("name", ["label_words", "vocabulary", "linear"])
def test_the_loss_of_a_mixture_of_labels_is_the_mixture_of_their_losses(name, backbone, z):
    head = build_head(name, backbone, 2, ANSWERS[:2])
    first, second = (head.losses(z, torch.full((4,), label), backbone) for label in (0, 1))
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.2, 0.8]])
    expected = shares[:, 0] * first + shares[:, 1] * second
    torch.testing.assert_close(head.losses(z, shares, backbone), expected)


@pytest.mark.parametrize("name", ["label_words", "vocabulary"])
def test_scores_of_a_half_precision_backbone_are_float32(name, z):
    backbone = SplitBackbone(tiny_model("llama").to(torch.bfloat16))
    head = build_head(name, backbone, 3, ANSWERS)
    assert head.scores(z.to(torch.bfloat16), backbone).dtype == torch.float32
    assert head.losses(z.to(torch.bfloat16), LABELS, backbone).dtype == torch.float32


@pytest.mark.parametrize("name", ["label_words", "vocabulary"])
def test_label_words_move_with_the_module_and_stay_out_of_checkpoints(name, backbone):
    head = build_head(name, backbone, 3, ANSWERS)
    assert head.state_dict() == {}
    assert [buffer.tolist() for buffer in head.buffers()] == [WORDS]
    assert list(head.parameters()) == []


@pytest.mark.parametrize("name", ["label_words", "vocabulary"])
def test_a_backbone_without_lm_head_is_pointed_to_the_linear_head(name):
    headless = SplitBackbone(AutoModel.from_config(tiny_config("bert"), attn_implementation="eager"))
    with pytest.raises(LptError, match=rf"head={name} needs a language-model head, which bert lacks; use head=linear"):
        build_head(name, headless, 3, ANSWERS)


def test_an_unknown_head_is_refused_with_the_nearest_name(backbone):
    with pytest.raises(LptError, match=r"head=label_word is not known.*did you mean 'label_words'"):
        build_head("label_word", backbone, 3, ANSWERS)
