import pytest
import torch
from experiment import make_experiment
from safetensors.torch import load_file

from lpt.errors import LptError


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("experiment"))


def test_a_static_prompt_cannot_start_from_embeddings_of_another_size(tmp_path):
    with pytest.raises(LptError, match=r"^generator.init=vocabulary: .* has embeddings of 12, and a prompt of H=16 "):
        make_experiment(tmp_path, "electra").run("vocabulary", "generator=none", "generator.init=vocabulary")


@pytest.mark.parametrize("generator", ["npg", "phm", "none"])
def test_a_prompt_starts_from_states_of_training_texts_on_request(experiment, generator):
    options = [f"generator={generator}", "generator.normalize=true", "generator.init=states", "optim.lr=1e-9"]
    experiment.run(f"states-{generator}", *options, "trainer.max_steps=1")
    found = load_file(experiment.run_dir(f"states-{generator}") / "adapter" / "adapter.safetensors")
    rows = found[f"method.generator.{'prompt' if generator == 'none' else 'proj_up.bias'}"].view(5, 16)
    torch.testing.assert_close(rows.square().mean(1), torch.ones(5))
    assert len(rows.unique(dim=0)) > 1


def test_a_static_prompt_starts_from_the_vocabulary_on_request(experiment):
    result = experiment.run("vocabulary", "generator=none", "generator.init=vocabulary", "trainer.max_steps=2")
    assert result["trainable_parameters"] == 5 * 16
