import errno
import json
import multiprocessing
import os
import shutil
import time

import pytest
import torch
from tiny import FAMILIES, HIDDEN, LAYERS, tiny_model

from lpt.backbones.names import ATTENTIONS
from lpt.backbones.split import SplitBackbone
from lpt.cache.entries import NUMBERS, entries
from lpt.cache.key import FORMAT, TrunkHash, rows_fingerprint
from lpt.cache.trunk import Plan, TrunkCache, _Found
from lpt.data.batches import EncodedSplit
from lpt.data.ragged import RaggedStates
from lpt.data.rows import LabeledRows
from lpt.data.templates import Encoded

LENGTHS = [5, 1, 12, 7, 7, 3, 30, 2]


def make_split(lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [Encoded(torch.randint(3, 50, (n,), generator=generator).tolist(), n - 1, False) for n in lengths]
    return EncodedSplit(rows, LabeledRows([("",)] * len(rows), [0] * len(rows), list(range(len(rows)))))


def make_backbone(family="llama", layer=3, **options):
    return SplitBackbone(tiny_model(family, **options), layer)


def get(folder, backbone=None, split=None, mode="disk", lines=None, **options):
    """States of a split through a cache of its own, and the cache."""
    said = [] if lines is None else lines
    cache = TrunkCache(mode, folder=folder, say=said.append, **options)
    backbone = make_backbone() if backbone is None else backbone
    split = make_split() if split is None else split
    cache.prepare(backbone, {"train": split})
    return cache.states(backbone, split, "train", pad_id=1), cache


def expected_row(backbone, split, i):
    h = backbone.embed(torch.tensor([split.rows[i].input_ids]))
    return backbone.run(h, None, 1, backbone.layer - 1)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_states_are_the_trunks(tmp_path, family):
    backbone, split = make_backbone(family, LAYERS), make_split()
    on_disk, in_memory = (get(tmp_path, backbone, split, mode)[0] for mode in ("disk", "memory"))
    assert torch.equal(on_disk.states, in_memory.states)
    for i in range(len(split)):
        torch.testing.assert_close(on_disk.row(i), expected_row(backbone, split, i), atol=1e-5, rtol=1e-5)


def test_padding_a_batch_of_states_puts_rows_in_order_with_zeros_behind(tmp_path):
    states, _ = get(tmp_path)
    padded = states.pad([3, 1, 5])
    assert padded.shape == (3, 7, HIDDEN)
    assert torch.equal(padded[0], states.row(3))
    assert torch.equal(padded[1, :1], states.row(1))
    assert not padded[1, 1:].any()


def test_states_have_the_backbones_dtype_and_no_padding_on_disk(tmp_path):
    backbone = SplitBackbone(tiny_model("llama").to(torch.bfloat16), 3)
    states, _ = get(tmp_path, backbone)
    assert states.states.dtype == torch.bfloat16
    assert [path.stat().st_size for path in tmp_path.glob(f"*/{NUMBERS}")] == [sum(LENGTHS) * HIDDEN * 2]


def test_reading_that_takes_long_says_how_long_it_took(tmp_path, monkeypatch):
    monkeypatch.setattr("lpt.cache.trunk.MOMENT", -1.0)
    lines = []
    get(tmp_path, lines=lines)
    assert lines[1:] == [f"trunk cache: read {len(LENGTHS)} train texts once in 0 s (states entering layer 3)"]


def test_a_second_run_reuses_what_the_first_computed(tmp_path, monkeypatch):
    first, cache = get(tmp_path)
    assert cache.facts.built == ["train"]
    monkeypatch.setattr(SplitBackbone, "run", lambda *a, **k: pytest.fail("computed again"))
    again, cache = get(tmp_path)
    assert cache.facts.reused == ["train"]
    assert torch.equal(again.states, first.states)


def test_dropout_of_a_training_backbone_does_not_reach_the_cache(tmp_path):
    calm, _ = get(tmp_path / "calm", make_backbone("gpt2"))
    training = SplitBackbone(tiny_model("gpt2"), 3, dropout=True).train()
    noisy, _ = get(tmp_path / "noisy", training)
    assert torch.equal(calm.states, noisy.states)
    assert training.training


# Content addresses


def key_of(backbone, split=None):
    return TrunkHash(backbone).entering(backbone.layer), rows_fingerprint(split or make_split())


def test_the_key_follows_weights_below_the_layer_and_no_others():
    base = key_of(make_backbone())
    below, above = make_backbone(), make_backbone()
    with torch.no_grad():
        next(below.layers[1].parameters()).view(-1)[0] += 1e-3
        next(above.layers[2].parameters()).view(-1)[0] += 1e-3
    assert key_of(make_backbone()) == base
    assert key_of(below) != base
    assert key_of(above) == base


@pytest.mark.parametrize(
    "other",
    [
        lambda: make_backbone(layer=2),
        lambda: make_backbone(attention="sdpa"),
        lambda: make_backbone(rms_norm_eps=1e-3),
        lambda: SplitBackbone(tiny_model("llama").to(torch.bfloat16), 3),
        lambda: make_backbone("mistral"),
    ],
)
def test_the_key_follows_layer_attention_configuration_number_format_and_family(other):
    assert key_of(other())[0] != key_of(make_backbone())[0]


def test_the_key_follows_the_attention_in_use():
    backbone, keys = make_backbone(), set()
    for attention in (*ATTENTIONS, backbone.attention):
        backbone.use_attention(attention)
        assert key_of(backbone) == key_of(make_backbone(attention=attention))
        keys.add(key_of(backbone))
    assert len(keys) == len(ATTENTIONS)


def test_the_key_follows_where_answers_stand_behind_a_text():
    def split(branches):
        return EncodedSplit([Encoded([5, 6, 7, 8], 1, False, branches)], LabeledRows([("",)], [0], [0]))

    keys = {rows_fingerprint(split(branches)) for branches in ((), (2, 2), (2, 3))}
    assert len(keys) == 3


def test_the_key_follows_the_rows_and_their_order():
    assert rows_fingerprint(make_split()) == rows_fingerprint(make_split())
    split = make_split()
    reordered = EncodedSplit(split.rows[::-1], split.labeled)
    regrouped = make_split([6, *LENGTHS[2:]])
    assert len({rows_fingerprint(s) for s in (split, reordered, regrouped, make_split(seed=1))}) == 4


def test_versions_with_other_formats_share_a_folder_and_leave_each_others_entries_alone(tmp_path, monkeypatch):
    get(tmp_path)
    for version in (FORMAT + 1, FORMAT - 1):
        monkeypatch.setattr("lpt.cache.key.FORMAT", version)
        assert get(tmp_path)[1].facts.built == ["train"]  # not read
    for version in (FORMAT - 1, FORMAT, FORMAT + 1):
        monkeypatch.setattr("lpt.cache.key.FORMAT", version)
        assert get(tmp_path)[1].facts.reused == ["train"]  # not removed
    assert len(entries(tmp_path)) == 3


# Incremental


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_a_higher_layer_are_computed_from_the_nearest_lower_one(tmp_path, family, monkeypatch):
    split, starts = make_split(), []
    run = SplitBackbone.run
    monkeypatch.setattr(
        SplitBackbone,
        "run",
        lambda self, h, mask, first, last, *a: starts.append(first) or run(self, h, mask, first, last, *a),
    )
    for layer, start in ((2, 1), (4, 2), (3, 2)):
        starts.clear()
        incremental, _ = get(tmp_path / "one", make_backbone(family, layer), split)
        assert set(starts) == {start}
        direct, _ = get(tmp_path / f"direct {layer}", make_backbone(family, layer), split)
        torch.testing.assert_close(incremental.states, direct.states, atol=1e-6, rtol=1e-6)


# Damage


def flip_a_byte(place):
    data = bytearray((place / NUMBERS).read_bytes())
    data[100] ^= 1
    (place / NUMBERS).write_bytes(data)


def truncate(place):
    data = (place / NUMBERS).read_bytes()
    (place / NUMBERS).write_bytes(data[:-64])


def put_in_a_foreign_entry(place):
    get(place.parent / "foreign", split=make_split(seed=1))
    (foreign,) = (place.parent / "foreign").glob("*/entry.json")
    shutil.rmtree(place)
    shutil.move(foreign.parent, place)


def lose_the_entry(place):
    (place / "entry.json").unlink()


def garble_the_entry(place):
    (place / "entry.json").write_text('{"key": ')


def lose_the_numbers(place):
    (place / NUMBERS).unlink()


@pytest.mark.parametrize(
    "damage", [flip_a_byte, truncate, put_in_a_foreign_entry, lose_the_entry, garble_the_entry, lose_the_numbers]
)
def test_a_damaged_entry_is_computed_again_never_trusted(tmp_path, damage):
    good = get(tmp_path)[0].states.clone()
    (place,) = (path for path in tmp_path.iterdir() if path.is_dir())
    damage(place)
    lines = []
    states, cache = get(tmp_path, lines=lines)
    assert cache.facts.built == ["train"]
    assert torch.equal(states.states, good)
    assert f"trunk cache: {place.name} is damaged and is computed again" in lines
    assert get(tmp_path)[1].facts.reused == ["train"]


def test_a_half_written_entry_is_never_seen(tmp_path, monkeypatch):
    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lpt.cache.entries._checksum", die)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]
    states, cache = get(tmp_path)
    assert cache.facts.built == ["train"]
    torch.testing.assert_close(states.row(2), expected_row(make_backbone(), make_split(), 2), atol=1e-5, rtol=1e-5)
    assert not list(tmp_path.glob("*.partial"))


# Budget

NEEDED = sum(LENGTHS) * HIDDEN * 4


def plan(tmp_path, mode="auto", backbone=None, **options):
    cache = TrunkCache(mode, folder=tmp_path, say=lambda line: None, **options)
    return cache.prepare(backbone or make_backbone(), {"train": make_split()})


def test_auto_takes_disk_then_memory_then_nothing(tmp_path, monkeypatch):
    assert plan(tmp_path).mode == "disk"
    assert plan(tmp_path, max_bytes=NEEDED).mode == "disk"
    assert plan(tmp_path, max_bytes=NEEDED - 1).mode == "off"
    monkeypatch.setattr("lpt.cache.entries.free_bytes", lambda folder: 0)
    assert plan(tmp_path).mode == "memory"


def test_the_plan_is_one_line_with_the_estimate(tmp_path):
    assert plan(tmp_path).reason == "disk, 4 kB of states entering layer 3"
    assert plan(tmp_path, "memory").reason == "memory, 4 kB of states entering layer 3"
    reason = "off, because 4 kB of states entering layer 3 exceed the budget of 10 B (cache.max_bytes)"
    assert plan(tmp_path, max_bytes=10).reason == reason


def test_dropout_in_the_trunk_turns_caching_off_and_says_why(tmp_path):
    backbone = SplitBackbone(tiny_model("gpt2"), 3, trunk_dropout=True)
    found = plan(tmp_path, "disk", backbone)
    assert found.mode == "off"
    assert "lpt.trunk_dropout=true" in found.reason


def test_the_embeddings_alone_are_not_worth_keeping_and_trained_ones_cannot_be(tmp_path):
    reason = "off, because nothing but the embedding stands below layer 1"
    assert plan(tmp_path, "disk", make_backbone(layer=1)) == Plan("off", reason)
    backbone = make_backbone(layer=1)
    backbone.train_embeddings = True
    assert plan(tmp_path, "disk", backbone) == Plan("off", "off, because the embeddings are trained too")


def test_the_least_recently_used_entries_make_room(tmp_path):
    splits = [make_split(seed=seed) for seed in range(4)]
    for split in splits[:3]:
        get(tmp_path, split=split)
    oldest = [os.utime(entry.place / "entry.json", (i, i)) for i, entry in enumerate(entries(tmp_path))]
    assert len(oldest) == 3
    order = sorted(entries(tmp_path), key=lambda entry: entry.used)
    room_for_three = sum(entry.bytes for entry in order) + 10
    get(tmp_path, split=splits[3], max_bytes=room_for_three)
    left = {entry.place for entry in entries(tmp_path)}
    assert order[0].place not in left
    assert {order[1].place, order[2].place} < left
    assert len(left) == 3


def test_a_full_disk_turns_caching_off_with_a_warning(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    lines = []
    states, cache = get(tmp_path, lines=lines)
    assert states is None
    assert cache.facts.mode == "off"
    assert lines[-1] == "warning: trunk cache: off, because the disk is full; the run continues without it"
    assert entries(tmp_path) == []


def test_entries_tell_what_they_belong_to(tmp_path):
    get(tmp_path, belongs_to={"backbone": "tiny", "task": "reviews"})
    (entry,) = entries(tmp_path)
    facts = {name: entry.facts[name] for name in ("backbone", "task", "split", "layer", "rows", "what")}
    what = "states entering layer 3"
    assert facts == {"backbone": "tiny", "task": "reviews", "split": "train", "layer": 3, "rows": 8, "what": what}
    assert (entry.place / NUMBERS).stat().st_size == NEEDED
    assert entry.bytes == NEEDED + (entry.place / "entry.json").stat().st_size
    assert json.loads((entry.place / "entry.json").read_text()) == entry.facts


# Processes


def race(folder, barrier, results):
    torch.set_num_threads(1)
    run = SplitBackbone.run

    def slow(self, *args, **kwargs):
        time.sleep(0.3)  # long enough for the other to arrive
        return run(self, *args, **kwargs)

    SplitBackbone.run = slow
    barrier.wait()
    states, cache = get(folder)
    results.put((cache.facts.built, cache.facts.reused, states.states.sum().item()))


def test_two_processes_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=race, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert [(built, reused) for built, reused, _ in found] == [([], ["train"]), (["train"], [])]
    assert found[0][2] == found[1][2]


def test_ragged_states_know_their_rows():
    ragged = RaggedStates(torch.arange(12.0).view(6, 2), [3, 1, 2])
    assert ragged.row(1).tolist() == [[6.0, 7.0]]
    assert ragged.pad([1, 2]).tolist() == [[[6.0, 7.0], [0.0, 0.0]], [[8.0, 9.0], [10.0, 11.0]]]


class OtherNode:
    """The other of two nodes, as the first process tells it what it found."""

    global_rank, world_size, local_rank, node_rank, num_nodes = 1, 2, 0, 1, 2

    def __init__(self, *told):
        self._told = list(told)

    def barrier(self, name=None):
        pass

    def broadcast(self, obj, src=0):
        return self._told.pop(0)

    def reduce_boolean_decision(self, decision):
        return decision


@pytest.mark.parametrize("what", ["shares the folder", "has none", "has an entry of its own"])
def test_another_node_computes_nothing_and_reads_the_first_ones_states_or_none(tmp_path, what):
    backbone, split = make_backbone(), make_split()
    theirs, _ = get(tmp_path / "first", backbone, split)
    (entry,) = tmp_path.glob("first/*/entry.json")
    own = tmp_path / ("first" if what == "shares the folder" else "other")
    if what == "has an entry of its own":
        shutil.copytree(tmp_path / "first", own)
        (own / entry.parent.name / "entry.json").write_text("{}")
    cache = TrunkCache("disk", folder=own, say=print)
    built = _Found()
    ranks = OtherNode(Plan("disk", ""), built, None, entry.read_text())
    cache.prepare(backbone, {"train": split}, ranks)
    backbone.run = None  # not to be called
    states = cache.states(backbone, split, "train", 1, ranks)
    if what == "shares the folder":
        assert torch.equal(states.row(2), theirs.row(2))
    else:
        assert states is None
        assert cache.plan.reason == (
            f"off, because not every node sees {own}; set LPT_CACHE to a folder on a disk that all of them share"
        )
