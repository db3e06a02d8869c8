import pytest
import torch
from tiny import tiny_model, token_batch

from lpt.classifier import Scorer
from lpt.data.batches import Batch
from lpt.heads import build_head
from lpt.late_prompt import LatePromptModel


@pytest.fixture(params=["label_words", "vocabulary", "linear"])
def scorer(request):
    method = LatePromptModel(tiny_model("llama"), layer=2, prompt_length=3, bottleneck=4)
    return Scorer(method, build_head(request.param, method.backbone, 3, [[10], [11], [12]]))


@pytest.fixture
def batch():
    input_ids, mask = token_batch()
    rows = torch.arange(len(input_ids))
    return Batch(input_ids, mask.bool(), mask.sum(1) - 1, rows % 3, rows, torch.ones(len(rows)), int(mask.sum()))


def test_an_evaluation_is_the_softmax_of_the_heads_scores_and_the_losses_of_training(scorer, batch):
    probabilities, losses = scorer.probabilities_and_losses(batch)
    scores = scorer.head.scores(scorer.read_out(batch), scorer.method.backbone)
    powers = scores.double().exp()
    torch.testing.assert_close(probabilities, powers / powers.sum(1, keepdim=True))
    torch.testing.assert_close(losses, scorer.losses(batch))
    assert probabilities.shape == (4, 3)
    assert (probabilities.dtype, losses.dtype) == (torch.float64, torch.float32)


def test_one_pass_serves_all_classes(scorer, batch, monkeypatch):
    passes, method = [], scorer.method
    for name in ("trunk", "upper"):
        whole = getattr(method, name)
        monkeypatch.setattr(method, name, lambda *given, name=name, whole=whole: passes.append(name) or whole(*given))
    scorer.probabilities_and_losses(batch)
    assert passes == ["trunk", "upper"]


def test_states_at_hand_are_not_computed_again(scorer, batch, monkeypatch):
    expected = scorer.losses(batch)
    at_hand = batch._replace(states=scorer.method.trunk(batch.input_ids, batch.attention_mask))
    monkeypatch.setattr(scorer.method, "trunk", None)
    torch.testing.assert_close(scorer.losses(at_hand), expected)
