"""A scikit-learn estimator over `lpt.fit`, for `cross_val_score`, `GridSearchCV` and pipelines. Needs scikit-learn."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from lpt.api import Text, fit
from lpt.console import quietly


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A text classifier that scikit-learn can fit and score.

    Args:
        backbone: as the option `backbone`.
        recipe: as the option `recipe`.
        seed: as the option `seed`.
        overrides: further options, as typed on the command line: `("optim.lr=3e-4", "lpt.layer=3")`.

    Attributes:
        classes_: the labels, `[C]`, of the type that they were given in.
        classifier_: the fitted `LatePromptClassifier`.
    """

    def __init__(
        self,
        backbone: str = "minilm-l6",
        recipe: str = "default",
        seed: int = 13,
        overrides: Sequence[str] = (),
    ):
        self.backbone, self.recipe, self.seed, self.overrides = backbone, recipe, seed, overrides

    def fit(self, X: Iterable[Text], y: Iterable[Any]) -> "TextClassifier":
        """Train on texts `[N]` and their labels `[N]`, all of them: scikit-learn does the testing.

        Raises:
            LptError: as `lpt.fit`.
        """
        given = np.asarray(y if isinstance(y, np.ndarray) else list(y))
        self.classes_, codes = np.unique(given, return_inverse=True)
        everything = ("fewshot.k_dev=0", "task.files.test_rows=0")
        with quietly():
            self.classifier_ = fit(
                X,
                [str(code) for code in codes],
                *everything,
                *self.overrides,
                folds=0,
                backbone=self.backbone,
                recipe=self.recipe,
                seed=self.seed,
            )
        # By their numbers: `fit` sorts names in an order of its own.
        self._columns = [self.classifier_.labels.index(str(code)) for code in range(len(self.classes_))]
        return self

    def predict_proba(self, X: Iterable[Text]) -> np.ndarray:
        """The probability of each of `classes_`, `[N, C]`.

        Raises:
            NotFittedError: `fit` has not been called.
        """
        check_is_fitted(self, "classifier_")
        return self.classifier_.predict_proba(X)[:, self._columns]

    def predict(self, X: Iterable[Text]) -> np.ndarray:
        """The likeliest class of each text, `[N]`.

        Raises:
            NotFittedError: `fit` has not been called.
        """
        best = self.predict_proba(X).argmax(1)
        found: np.ndarray = self.classes_[best]
        return found
