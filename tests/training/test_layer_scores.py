"""`lpt layers`: what it reads, what it says, and what it refuses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from experiment import make_experiment
from tiny import LAYERS

from lpt.cli.layers import PROBE
from lpt.config.compose import compose_points
from lpt.config.resolve import resolve
from lpt.errors import LptError
from lpt.training.experiment import prepare
from lpt.training.layer_scores import POOLS, LayerScore, best_of, read_states, score_layers


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    experiment = make_experiment(tmp_path_factory.mktemp("layers"), "llama")
    kept = experiment.options_but("lpt.layer", "lpt.bottleneck", "lpt.dropout", "fewshot.k")
    (cfg,) = compose_points([[*kept, *PROBE, "fewshot.k=44"]])
    return resolve(cfg)


def test_each_layer_is_read_as_the_probe_would_read_it(config):
    experiment = prepare(config)
    found = read_states(experiment)
    assert set(found) == {(layer, pool) for layer in range(1, LAYERS + 1) for pool in POOLS}
    split = experiment.splits["train"]
    batch = split.collate([(i, 1.0) for i in range(len(split))], experiment.classifier.pad_id)
    model = experiment.classifier.method.backbone.model
    with torch.no_grad():
        entering = model(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True).hidden_states
    for layer in range(1, LAYERS + 1):
        for i, length in enumerate(split.lengths):
            h = F.layer_norm(entering[layer - 1][i, :length], entering[0].shape[-1:])
            np.testing.assert_allclose(found[layer, "mean"][i], h.mean(0), atol=1e-5)
            np.testing.assert_allclose(found[layer, "readout"][i], h[-1], atol=1e-5)


def test_what_can_be_told_from_the_words_is_told(config):
    scores = score_layers(config, 4)
    assert [(score.layer, score.pool) for score in scores] == [(k, p) for k in range(1, LAYERS + 1) for p in POOLS]
    assert all(len(score.accuracies) == 4 for score in scores)
    assert best_of(scores).mean > 0.7  # a word of each text tells its label


def test_of_equal_layers_the_lowest_is_best():
    scores = [LayerScore(3, "mean", (0.5, 0.7)), LayerScore(2, "mean", (0.7, 0.5)), LayerScore(1, "mean", (0.5, 0.5))]
    assert best_of(scores).layer == 2
    assert scores[0].error == pytest.approx(0.1)


def test_more_folds_than_rows_of_a_class_are_refused(config):
    with pytest.raises(LptError, match=r"--folds 40: no class has more than \d+ training rows; give at most"):
        score_layers(config, 40)
