"""How well a linear classifier does on the frozen states of each layer: one forward pass, and ridge regression.

For each layer and each way to pool the tokens, scikit-learn fits ridge regression in closed form on all folds but one
and is scored on that one. A text is read once for all of them.

Shapes: N rows, H hidden size.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lpt.bars import Bar
from lpt.config.schema import Config
from lpt.data.batches import EvaluationBatches
from lpt.errors import LptError
from lpt.methods.state_probe import Pool, pooled
from lpt.training.experiment import Experiment, prepare

POOLS: tuple[Pool, ...] = ("mean", "readout")
STRENGTHS = np.logspace(0, 6, 7)  # of the ridge, chosen on the training folds by leaving one row out
BATCH_SIZE = 32


@dataclass(frozen=True)
class LayerScore:
    """What cross-validation says of one layer's states.

    Attributes:
        layer: the states are those that enter it, from 1.
        pool: `mean` of all tokens, or `readout`, the state at the read-out position.
        accuracies: of each fold, 0 to 1.
    """

    layer: int
    pool: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.accuracies))

    @property
    def error(self) -> float:
        """Standard error of that mean."""
        return float(np.std(self.accuracies, ddof=1) / len(self.accuracies) ** 0.5)


def score_layers(config: Config, folds: int) -> list[LayerScore]:
    """Score the states of every layer on the training rows, layer by layer.

    Args:
        config: of a run of `method=state_probe`, whose training rows are taken.
        folds: of cross-validation.

    Raises:
        LptError: a regression; no class with as many rows as folds; scikit-learn is not installed; or as of a run.
    """
    try:
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise LptError("lpt layers needs scikit-learn, not installed here: pip install 'lpt[sklearn]'") from None
    if config.task.value_range is not None:
        raise LptError(f"lpt layers compares classes, and task={config.task.name} is a regression; choose another task")
    experiment = prepare(config)
    labels = np.array(experiment.splits["train"].labels)
    most = int(np.bincount(labels).max())
    if most < folds:
        raise LptError(
            f"--folds {folds}: no class has more than {most} training rows; give at most that, or a larger k"
        )
    cut = StratifiedKFold(folds, shuffle=True, random_state=config.seed)
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(STRENGTHS))
    states = read_states(experiment)
    found = []
    with Bar("fitting", len(states)) as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # said by `prepare` already
        for done, ((layer, pool), x_NH) in enumerate(states.items(), 1):
            found.append(LayerScore(layer, pool, tuple(map(float, cross_val_score(model, x_NH, labels, cv=cut)))))
            bar.update(done)
    return found


@torch.inference_mode()
def read_states(experiment: Experiment) -> dict[tuple[int, Pool], np.ndarray]:
    """(layer, pool) -> the pooled states `[N, H]`, float32, that enter the layer, of the training rows."""
    backbone, split = experiment.classifier.method.backbone, experiment.splits["train"]
    backbone = backbone.to(experiment.placement.device)
    layers = range(1, backbone.num_layers + 1)
    kept = {(layer, pool): np.empty((len(split), backbone.hidden_size), "f4") for layer in layers for pool in POOLS}
    done = 0
    with Bar(f"reading {len(split):,} train texts", len(split)) as bar:
        for items in EvaluationBatches(split.lengths, BATCH_SIZE):
            batch = split.collate(items, experiment.classifier.pad_id).to(experiment.placement.device)
            states, _ = backbone.read_through(batch.input_ids, batch.attention_mask, set(layers), None)
            rows = [i for i, _ in items]
            for layer, h_BTH in states.items():
                for pool in POOLS:
                    z_BH = pooled(h_BTH, batch.attention_mask, batch.readout_position, pool)
                    kept[layer, pool][rows] = z_BH.cpu().numpy()
            done += len(items)
            bar.update(done)
    return kept


def best_of(scores: Sequence[LayerScore]) -> LayerScore:
    """The one with the highest mean; of equals, the lowest layer, which costs least."""
    return max(scores, key=lambda score: (score.mean, -score.layer))
