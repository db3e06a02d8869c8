import pytest
import torch
from tiny import tiny_model

from lpt.backbones.fingerprint import fingerprint


def saved(model, folder, **options):
    model.save_pretrained(folder, **options)
    (weights,) = [*folder.glob("*.index.json"), *folder.glob("model.safetensors")]
    return fingerprint(weights)


@pytest.fixture
def model():
    return tiny_model("llama", vocab_size=300)  # embeddings of more numbers than are looked at


def test_the_same_weights_have_one_fingerprint_however_they_are_stored(model, tmp_path):
    plain = saved(model, tmp_path / "plain")
    assert saved(model, tmp_path / "shards", max_shard_size="10KB") == plain
    assert len([*(tmp_path / "shards").glob("*.safetensors")]) > 1
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert fingerprint(tmp_path / "pytorch_model.bin") == plain
    assert saved(model.to(torch.bfloat16), tmp_path / "bf16") == plain


def test_other_weights_have_another_fingerprint(model, tmp_path):
    found = {saved(model, tmp_path / "plain"), saved(tiny_model("llama", vocab_size=300, seed=1), tmp_path / "other")}
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[-1, -1] += 1  # of one tensor, one number
    assert len(found | {saved(model, tmp_path / "changed")}) == 3
