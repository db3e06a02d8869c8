"""What is kept of rows, put together in batches."""

import pytest
import torch

from lpt.data.batches import Batch
from lpt.data.ragged import Kept, PaddedKeysValues, RaggedKeysValues, RaggedStates, copy

LENGTHS = [3, 1, 2]


def keys_values(dtype=torch.float32, skip=0):
    """Of 3 rows: 2 layers, 1 head of size 2."""
    numbers = torch.arange(sum(LENGTHS) * 2 * 2 * 2, dtype=torch.float32).to(dtype)
    return RaggedKeysValues(numbers, LENGTHS, 2, 1, 2, skip)


def test_rows_of_keys_and_values_stand_one_after_the_other():
    kept = keys_values()
    assert [kept.row(i).shape for i in range(3)] == [(2, 2, 1, n, 2) for n in LENGTHS]
    assert torch.equal(torch.cat([kept.row(i).flatten() for i in range(3)]), kept.numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_of_keys_and_values_has_a_pair_for_each_layer_with_zeros_behind(dtype):
    kept = keys_values(dtype)
    batch = kept.pad([2, 0])
    assert len(batch) == 2
    for layer in (1, 0, 1):  # in any order, as often as asked
        for which, found in enumerate(batch[layer]):
            assert found.shape == (2, 1, 3, 2)
            assert found.dtype is dtype
            assert torch.equal(found[0, :, :2], kept.row(2)[layer, which])
            assert torch.equal(found[1], kept.row(0)[layer, which])
            assert not found[0, :, 2:].any()
    with pytest.raises(IndexError):
        batch[2]


def test_layers_below_k_are_left_out():
    above = keys_values(skip=1).pad([0, 1])
    assert len(above) == 1
    for found, expected in zip(above[0], keys_values().pad([0, 1])[1], strict=True):
        assert torch.equal(found, expected)


def test_rows_are_found_by_their_place_where_some_are_kept():
    states = RaggedStates(torch.arange(12.0).view(6, 2), LENGTHS)
    kept = Kept(states, keys_values(), places={10: 0, 20: 1, 30: 2})
    padded, pairs = kept.batch([30, 10])
    assert torch.equal(padded, states.pad([2, 0]))
    assert torch.equal(pairs[0][0], keys_values().pad([2, 0])[0][0])
    assert kept.bytes == 12 * 4 + sum(LENGTHS) * 8 * 4


def test_a_batch_for_another_device_has_pairs_of_its_own():
    """As a GPU's: there, nothing is put together in the middle of a step."""
    fields = {"input_ids": torch.zeros(2, 3), "attention_mask": None, "num_tokens": 5}
    fields |= {name: torch.zeros(2) for name in ("readout_position", "labels", "rows", "weights")}
    batch = Batch(**fields, states=torch.zeros(2, 3, 2), keys_values=keys_values().pad([2, 0]))
    assert isinstance(batch.to(torch.device("cpu")).keys_values, PaddedKeysValues)
    moved = batch.to(torch.device("meta")).keys_values
    assert [(keys.device.type, values.shape) for keys, values in moved] == [("meta", (2, 1, 3, 2))] * 2


def test_copies_are_exact_in_every_format():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        numbers = torch.randn(5, 4).to(dtype)
        into = torch.zeros(4, 5, dtype=dtype).T
        copy(into, numbers)
        assert torch.equal(into, numbers)
