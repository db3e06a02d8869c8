"""The freeze certificate of a run: what was frozen has kept its bits, and nothing was trained but what should be."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import xxhash

from lpt.cache.key import add_tensors
from lpt.classifier import LatePromptClassifier
from lpt.errors import LptError
from lpt.training.result import FreezeFacts


@dataclass(frozen=True)
class Promise:
    """What training must leave as it is, noted before it begins.

    Attributes:
        hash: of every frozen parameter, its name included.
        frozen: how many numbers are frozen.
        trained: names of the parameters that may change.
    """

    hash: str
    frozen: int
    trained: list[str]

    @classmethod
    def of(cls, classifier: LatePromptClassifier) -> "Promise":
        """The promise of a classifier as it is now."""
        frozen = {name: p for name, p in classifier.named_parameters() if not p.requires_grad}
        trained = [name for name, p in classifier.named_parameters() if p.requires_grad]
        digest = xxhash.xxh3_128()
        add_tensors(digest, frozen)
        return cls(digest.hexdigest(), sum(p.numel() for p in frozen.values()), trained)

    def certify(self, classifier: LatePromptClassifier, optimizers: Iterable[torch.optim.Optimizer]) -> FreezeFacts:
        """Check that the promise was kept; to be called while the classifier is still in train mode.

        Args:
            classifier: what was trained.
            optimizers: what trained it.

        Raises:
            LptError: it was not: the run's numbers are not those of the method it names.
        """
        now, names = Promise.of(classifier), {p: name for name, p in classifier.named_parameters()}
        problems = []
        if now.trained != self.trained:
            changed = sorted(set(now.trained) ^ set(self.trained))
            problems.append(f"other parameters are trainable than before: {', '.join(changed)}")
        elif now.hash != self.hash:
            problems.append("frozen parameters have changed")
        given = [
            names.get(p, "a parameter of something else")
            for o in optimizers
            for g in o.param_groups
            for p in g["params"]
        ]
        if optimizers and sorted(given) != sorted(self.trained):
            changed = sorted(set(given) ^ set(self.trained)) or given
            problems.append(f"the optimizer trains other parameters than it should: {', '.join(changed)}")
        awake = classifier.method.backbone.wrongly_in_train_mode()
        if awake:
            problems.append(f"modules of the frozen backbone are in train mode: {', '.join(awake[:5])}")
        if problems:
            raise LptError(
                f"the run broke what its method promises: {'; '.join(problems)}. Its results would be those of "
                "something else; if a plugin is used, see what it changes, otherwise please report this"
            )
        return FreezeFacts(self.hash, self.frozen, self.trained)
