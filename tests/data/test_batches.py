from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lpt.data.batches import EncodedSplit, EvaluationBatches, TrainBatches
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded
from lpt.training.datamodule import PromptData

GRID = [(1, 1), (1, 3), (2, 1), (3, 2), (2, 4), (5, 1)]  # world, gradient_accumulation
EVERY_GRID = pytest.mark.parametrize(("world", "gradient_accumulation"), GRID)
SIZES = pytest.mark.parametrize(("size", "batch_size"), [(40, 8), (43, 8), (41, 8), (5, 8), (1, 8), (43, 43), (7, 1)])


def epoch_of(batches: TrainBatches, epoch: int) -> list:
    batches.set_epoch(epoch)
    return list(batches)


def all_ranks(size, batch_size, world, gradient_accumulation, epoch=0, **options) -> list:
    """What every rank gets: rank -> micro-batches."""
    return [
        epoch_of(TrainBatches(lengths(size), batch_size, 13, rank, world, gradient_accumulation, **options), epoch)
        for rank in range(world)
    ]


def steps(ranks, gradient_accumulation) -> list:
    """Optimizer step -> the micro-batches of all ranks."""
    return [
        [micro for rank in ranks for micro in rank[i : i + gradient_accumulation]]
        for i in range(0, len(ranks[0]), gradient_accumulation)
    ]


def lengths(size) -> list[int]:
    return [int(length) for length in np.random.default_rng(1).integers(3, 60, size=size)]


# Training


@EVERY_GRID
@SIZES
def test_every_row_trains_once_per_epoch_over_all_ranks(size, batch_size, world, gradient_accumulation):
    ranks = all_ranks(size, batch_size, world, gradient_accumulation)
    taken = sorted(row for rank in ranks for micro in rank for row, weight in micro if weight > 0)
    assert taken == list(range(size))


@EVERY_GRID
@SIZES
def test_a_step_has_the_same_rows_on_any_number_of_devices(size, batch_size, world, gradient_accumulation):
    alone = [{row for row, _ in batch} for (batch,) in steps(all_ranks(size, batch_size, 1, 1), 1)]
    shared = [
        {row for micro in step for row, weight in micro if weight > 0}
        for step in steps(all_ranks(size, batch_size, world, gradient_accumulation), gradient_accumulation)
    ]
    assert shared == alone
    assert [len(rows) for rows in alone[:-1]] == [batch_size] * (len(alone) - 1)


@EVERY_GRID
@SIZES
def test_every_rank_takes_as_many_micro_batches_as_announced_and_none_is_empty(
    size, batch_size, world, gradient_accumulation
):
    for rank, micro_batches in enumerate(all_ranks(size, batch_size, world, gradient_accumulation)):
        batches = TrainBatches(lengths(size), batch_size, 13, rank, world, gradient_accumulation)
        assert len(micro_batches) == len(batches) == batches.steps_per_epoch * gradient_accumulation
        assert min(map(len, micro_batches)) >= 1


@EVERY_GRID
@SIZES
def test_the_optimizer_sees_the_mean_over_the_rows_of_the_step(size, batch_size, world, gradient_accumulation):
    loss = np.random.default_rng(0).normal(size=size)
    alone = [np.mean([loss[row] for row, _ in batch]) for (batch,) in steps(all_ranks(size, batch_size, 1, 1), 1)]
    seen = []
    for step in steps(all_ranks(size, batch_size, world, gradient_accumulation), gradient_accumulation):
        sums = [sum(weight * loss[row] for row, weight in micro) for micro in step]
        # Lightning divides by the accumulated micro-batches, DDP averages over ranks.
        seen.append(
            np.mean([np.sum(rank) / gradient_accumulation for rank in np.reshape(sums, (world, gradient_accumulation))])
        )
    np.testing.assert_allclose(seen, alone, rtol=1e-12)


def test_work_is_shared_evenly():
    for step in steps(all_ranks(45, 15, 2, 2), 2):
        assert sorted(map(len, step)) == [3, 4, 4, 4]


def test_epochs_and_seeds_shuffle_anew_and_repeat_exactly():
    first = [TrainBatches(lengths(40), 8, 13), TrainBatches(lengths(40), 8, 13)]
    assert epoch_of(first[0], 0) == epoch_of(first[1], 0)
    epochs = [epoch_of(first[0], 1), epoch_of(first[0], 0), epoch_of(TrainBatches(lengths(40), 8, 21), 0)]
    orders = [tuple(row for batch in epoch for row, _ in batch) for epoch in epochs]
    assert len({*orders, tuple(range(40))}) == 4
    assert epoch_of(first[0], 0) == epochs[1]


def test_rows_of_like_length_train_together_and_batches_come_in_any_order():
    tokens = np.array(lengths(800))
    batches = [[row for row, _ in batch] for batch in TrainBatches(tokens, 16, 13)]
    padded = sum(len(batch) * tokens[batch].max() for batch in batches)
    random_order = np.random.default_rng(0).permutation(800).reshape(-1, 16)
    assert padded / tokens.sum() < 1.2 < 1.6 < sum(16 * tokens[rows].max() for rows in random_order) / tokens.sum()
    means = [tokens[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_lightning_can_announce_epochs():
    batches = TrainBatches(lengths(40), 8, 13)
    batches.sampler.set_epoch(3)
    assert list(batches) == epoch_of(TrainBatches(lengths(40), 8, 13), 3)


# Resumption


@EVERY_GRID
@pytest.mark.parametrize("first_step", [0, 1, 5, 6, 7, 12, 17])
def test_training_goes_on_exactly_where_it_was_cut(world, gradient_accumulation, first_step):
    per_epoch = 6
    for rank in range(world):
        options = {"rank": rank, "world": world, "gradient_accumulation": gradient_accumulation}
        undisturbed = TrainBatches(lengths(43), 8, 13, **options)
        resumed = TrainBatches(lengths(43), 8, 13, **options, first_step=first_step)
        expected = [micro for epoch in range(4) for micro in epoch_of(undisturbed, epoch)][
            first_step * gradient_accumulation :
        ]
        first = first_step // per_epoch
        assert resumed.first_epoch == first
        got = list(resumed)  # before any epoch is announced, it stands at the one that was cut
        assert got == list(islice(expected, (per_epoch - first_step % per_epoch) * gradient_accumulation))
        got += [micro for epoch in range(first + 1, 4) for micro in epoch_of(resumed, epoch)]
        assert got == expected
        assert len(resumed) == len(undisturbed)  # Lightning counts from the epoch's start


def test_a_loader_that_is_not_told_the_step_would_repeat_rows():
    cut_at = 4
    undisturbed = epoch_of(TrainBatches(lengths(43), 8, 13), 0)
    assert list(TrainBatches(lengths(43), 8, 13, first_step=cut_at)) == undisturbed[cut_at:]
    assert list(islice(TrainBatches(lengths(43), 8, 13), len(undisturbed) - cut_at)) != undisturbed[cut_at:]


# Evaluation


LENGTHS = lengths(101)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 8, 101, 500])
def test_every_row_is_evaluated_once_over_all_ranks(world, batch_size):
    ranks = [list(EvaluationBatches(LENGTHS, batch_size, rank, world)) for rank in range(world)]
    batches = -(-len(LENGTHS) // batch_size)
    items = [item for rank in ranks[:batches] for batch in rank for item in batch]
    assert sorted(items) == [(row, 1.0) for row in range(101)]
    assert all(rank == ranks[0][:1] for rank in ranks[batches:])  # idle ranks repeat a batch; none has nothing
    assert all(len(batch) <= batch_size for rank in ranks for batch in rank)
    assert [len(list(rank)) for rank in ranks] == [len(rank) for rank in ranks]
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


def test_rows_of_like_length_are_evaluated_together():
    def padded(batches):
        return sum(max(LENGTHS[row] for row, _ in batch) * len(batch) for batch in batches)

    in_order = [[(row, 1.0) for row in range(i, min(i + 8, 101))] for i in range(0, 101, 8)]
    padding, without_sorting = padded(EvaluationBatches(LENGTHS, 8)) - sum(LENGTHS), padded(in_order) - sum(LENGTHS)
    assert padding < 0.1 * without_sorting
    assert padding < 0.1 * sum(LENGTHS)


def test_a_second_evaluation_takes_the_same_batches():
    batches = EvaluationBatches(LENGTHS, 8)
    assert list(batches) == list(batches)
    assert list(EvaluationBatches([], 8)) == []


# Padding


def split_of(*lengths) -> EncodedSplit:
    rows = [Encoded(list(range(10 * i, 10 * i + n)), n - 2, i == 1) for i, n in enumerate(lengths)]
    return EncodedSplit(
        rows, LabeledRows([("x",)] * len(rows), [i % 2 for i in range(len(rows))], list(range(len(rows))))
    )


def test_short_rows_are_padded_on_the_right_to_the_longest_of_the_batch():
    batch = split_of(3, 9, 2, 4).collate([(3, 0.5), (0, 2.0), (2, 0.0)], pad_id=7)
    assert batch.input_ids.tolist() == [[30, 31, 32, 33], [0, 1, 2, 7], [20, 21, 7, 7]]
    assert batch.attention_mask.tolist() == [[True] * 4, [True] * 3 + [False], [True] * 2 + [False] * 2]
    assert batch.readout_position.tolist() == [2, 1, 0]
    assert batch.labels.tolist() == [1, 0, 0]
    assert batch.rows.tolist() == [3, 0, 2]
    assert batch.weights.tolist() == [0.5, 2.0, 0.0]
    assert batch.num_tokens == 9
    assert [t.dtype for t in batch if isinstance(t, torch.Tensor)] == [
        torch.int64,
        torch.bool,
        torch.int64,
        torch.int64,
        torch.int64,
        torch.float32,
    ]


def test_the_labels_of_a_regression_are_shares_of_its_two_labels():
    values = LabeledRows([("x",)] * 3, [0.0, 3.8, 5.0], [0, 1, 2])
    split = EncodedSplit(split_of(3, 3, 3).rows, values, value_range=(0, 5))
    labels = split.collate([(1, 1.0), (0, 1.0)], pad_id=7).labels
    torch.testing.assert_close(labels, torch.tensor([[0.24, 0.76], [1.0, 0.0]]))


def test_without_padding_there_is_no_mask():
    batch = split_of(3, 5, 3).collate([(0, 1.0), (2, 1.0)], pad_id=7)
    assert batch.attention_mask is None
    assert batch.input_ids.tolist() == [[0, 1, 2], [20, 21, 22]]
    assert batch.num_tokens == 6


def test_answers_behind_a_text_are_branches_of_the_mask():
    rows = [Encoded([5, 6, 7, 8, 9], 1, False, (2, 2, 4)), Encoded([5, 7, 8, 9], 0, False, (2, 2, 4))]
    batch = EncodedSplit(rows, LabeledRows([("x",)] * 2, [0, 1], [0, 1])).collate([(0, 1.0), (1, 1.0)], pad_id=7)
    assert batch.attention_mask.tolist() == [[1, 1, 2, 2, 4], [1, 2, 2, 4, 0]]
    assert batch.attention_mask.dtype == torch.int64
    assert batch.num_tokens == 9


@pytest.mark.parametrize("lengths", [(3, 3), (3, 5)])
def test_a_batch_moves_whole(lengths):
    batch = split_of(*lengths).collate([(0, 1.0), (1, 1.0)], pad_id=7)
    moved = batch.to(torch.device("meta"))
    for name, value in batch._asdict().items():
        if isinstance(value, torch.Tensor):
            assert (getattr(moved, name).device.type, getattr(moved, name).shape) == ("meta", value.shape)
        else:
            assert getattr(moved, name) == value


def test_a_split_tells_lengths_and_the_share_of_cut_texts():
    split = split_of(3, 9, 2, 4)
    assert (len(split), split.lengths, split.labels) == (4, [3, 9, 2, 4], [0, 1, 0, 1])
    assert split.truncated_share == 0.25
    assert split_of().truncated_share == 0.0


# The data module


def data_of(rank=0, world=1, step=0, gradient_accumulation=2) -> PromptData:
    splits = {"train": split_of(*[3 + i % 5 for i in range(43)]), "validation": split_of(*LENGTHS)}
    classifier, no_cache = SimpleNamespace(pad_id=7), None
    data = PromptData(
        splits,
        classifier,
        no_cache,
        batch_size=8,
        gradient_accumulation=gradient_accumulation,
        eval_batch_size=16,
        seed=13,
    )
    here = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, global_step=step, strategy=here)
    return data


def test_loaders_serve_each_rank_its_share():
    train, validation = [], []
    for rank in range(3):
        data = data_of(rank, world=3)
        train += [row for batch in data.train_dataloader() for row in batch.rows[batch.weights > 0].tolist()]
        validation += [row for batch in data.val_dataloader() for row in batch.rows.tolist()]
    assert sorted(train) == list(range(43))
    assert sorted(validation) == list(range(101))


def test_the_training_loader_starts_at_the_trainers_step():
    whole, rest = (list(data_of(step=step).train_dataloader()) for step in (0, 4))
    assert [batch.rows.tolist() for batch in rest] == [batch.rows.tolist() for batch in whole[8:]]
    assert len(whole) == 12
