"""After training: the temperature of the validation rows, for the adapter and all that was predicted."""

from dataclasses import replace

from lpt.calibration import calibration_error, fit_temperature, tempered
from lpt.training.experiment import Experiment
from lpt.training.predictions import SplitPredictions
from lpt.training.result import CROSS_VALIDATION, Calibration


def calibrate(
    experiment: Experiment, predictions: dict[str, SplitPredictions]
) -> tuple[dict[str, SplitPredictions], Calibration | None]:
    """Fit a temperature, have the classifier use it, and bring the predictions to it.

    It is fitted on the validation rows, or on the cross-validated answers to the training rows.

    Every process of a run has the predictions of all rows, so all of them find the same temperature.

    Args:
        predictions: at temperature 1, by split.

    Returns:
        The predictions at that temperature, and what has come of it; the same predictions and None for a regression.
    """
    if experiment.config.task.value_range is not None:
        return predictions, None
    unseen = predictions.get("validation", predictions.get(CROSS_VALIDATION))
    temperature = 1.0
    if experiment.trains and unseen is not None:
        temperature = round(fit_temperature(unseen.probabilities, unseen.gold), 4)
    classifier = experiment.classifier
    classifier.config = replace(classifier.config, temperature=temperature)
    at_temperature = {
        split: replace(found, probabilities=tempered(found.probabilities, temperature))
        for split, found in predictions.items()
    }
    return at_temperature, Calibration(temperature, _errors(predictions), _errors(at_temperature))


def _errors(predictions: dict[str, SplitPredictions]) -> dict[str, float]:
    return {
        split: round(calibration_error(found.probabilities.max(1), found.predicted == found.gold), 6)
        for split, found in predictions.items()
    }
