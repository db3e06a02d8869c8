import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from experiment import make_experiment
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from lpt.sklearn import TextClassifier

TEXTS = [f"a {'good' if i % 2 else 'bad'} film {i}" for i in range(30)]


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    folder = make_experiment(tmp_path_factory.mktemp("sklearn"), "bert").folder
    options = (
        f"backbone.path='{folder}/backbone'",
        "trainer.max_steps=60",
        "trainer.accelerator=cpu",
        "trainer.precision=32",
        "lpt.layer=3",
        "optim.lr=3e-3",
        "cache=memory",
    )
    return TextClassifier(recipe="quick", overrides=options)


def test_scikit_learn_scores_it(estimator):
    scores = cross_val_score(estimator, TEXTS, [10 * (i % 2) for i in range(30)], cv=2)
    assert scores.mean() > 0.8


def test_classes_keep_their_type_and_order(estimator):
    labels = np.array([10 if i % 2 else 9 for i in range(30)])  # as texts, 10 sorts before 9
    fitted = clone(estimator).fit(TEXTS, labels)
    assert fitted.classes_.tolist() == [9, 10]
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.sum(1) == pytest.approx(1)
    assert (fitted.predict(TEXTS) == fitted.classes_[probabilities.argmax(1)]).all()
    assert fitted.score(TEXTS, labels) > 0.8


def test_an_estimator_that_is_not_fitted_says_so(estimator):
    with pytest.raises(NotFittedError):
        clone(estimator).predict(TEXTS)
