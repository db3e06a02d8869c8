from dataclasses import replace

import yaml
from tiny import tiny_adapter

from lpt.model_card import MANY_LABELS, model_card

TRAINING = {
    "rows": {"train": 40, "test": 20},
    "seed": 13,
    "lr": 0.001,
    "steps": 60,
    "best_step": 40,
    "precision": "float32",
    "judged_on": "test",
    "primary_metric": "accuracy",
    "metrics": {"test": {"accuracy": 0.75, "loss": 0.5}},
    "intervals": {"test": {"accuracy": [0.6, 0.9]}},
    "classes": {"bad | worse": [0.7, 0.8, 0.75, 10]},
}


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_says_what_the_hub_reads_and_what_a_person_needs(tmp_path):

    config = replace(tiny_adapter(tmp_path, "bert"), backbone="owner/model", training=TRAINING)
    card = model_card(config, 1234)
    facts = front_matter(card)
    assert facts["base_model"] == "owner/model"
    assert (facts["library_name"], facts["license"], facts["metrics"]) == ("lpt", "unknown", ["accuracy"])
    (result,) = facts["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.75}]
    for expected in (
        "1,234 numbers",
        "| test | accuracy | 0.750 | 0.600 to 0.900 |",
        "bad \\| worse | 0.700",
        "40 of 60",
    ):
        assert expected in card


def test_a_card_names_no_folder_of_the_machine_and_lists_no_scores_that_it_does_not_have(tmp_path):
    config = tiny_adapter(tmp_path, "bert")
    card = model_card(config, 10)
    assert str(tmp_path) not in card
    assert "base_model" not in front_matter(card)
    assert "## Scores" not in card
    many = replace(config, labels=[f"class {i}" for i in range(MANY_LABELS + 1)])
    assert f"One of {MANY_LABELS + 1} labels" in model_card(many, 10)
