"""The trunk computed once: states entering layer k, per example, kept and reused.

Below layer k nothing depends on what is trained, so with the trunk in eval mode its output is a constant of the
example. It is computed in one pass and then read by every epoch, evaluation, seed, generator and prompt length; on
disk by later runs too, and the states of a lower layer are where those of a higher one start from.

    <cache folder>/trunk/<key>/states.bin    [all tokens, H], rows one after the other, no padding
    <cache folder>/trunk/<key>/entry.json    what they belong to, and their checksum

An entry is named by its content (`TrunkKey`), written beside its place and moved there whole, verified when it is
opened, and rebuilt when it is not what it says.

Shapes: N rows, T tokens, H hidden size.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
import transformers
from filelock import FileLock, Timeout
from rich.progress import Progress
from torch import Tensor

from lpt.assets.wheels import cache_dir
from lpt.backbones.split import SplitBackbone
from lpt.console import console
from lpt.data.batches import EncodedSplit, EvaluationBatches, RaggedStates

SHARE = 0.25  # of free memory or disk that caches take unless told otherwise
STATES, ENTRY = "states.bin", "entry.json"
FORMAT = 1  # raised when the way states are computed or written changes: older entries are then never found


# What an entry is named by


class TrunkHash:
    """Hashes of everything that the states entering a layer depend on, but the rows.

    A chain: the hash for layer k is made of the one for layer k - 1 and the weights of layer k - 1, so that layers
    from k on, which the states do not depend on, do not change it.
    """

    def __init__(self, backbone: SplitBackbone):
        config = {
            name: value
            for name, value in backbone.config.to_diff_dict().items()
            if name not in ("_name_or_path", "transformers_version", "architectures", "dtype")
        }
        # What embeds: layers are added one by one, and the final norm, which may be trained, stands above them all.
        above = tuple(f"{path}." for path in (backbone.family.layers, backbone.family.final_norm) if path)
        outside = {name: x for name, x in backbone.base.state_dict().items() if not name.startswith(above)}
        device = backbone.model.device.type
        facts = [FORMAT, config, backbone.attention, device, torch.__version__, transformers.__version__]
        self._hashes = [_hash(json.dumps(facts, sort_keys=True, default=str), outside)]
        self._layers = backbone.layers

    def entering(self, layer: int) -> str:
        """For the states entering layer `layer`, from 1."""
        while len(self._hashes) < layer:
            below = self._layers[len(self._hashes) - 1]
            self._hashes.append(_hash(self._hashes[-1], below.state_dict()))
        return self._hashes[layer - 1]


def _hash(start: str, state: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(start.encode(), digest_size=16)
    for name, tensor in state.items():
        for part, plain in _plain(name, tensor):
            digest.update(f"{part} {tuple(plain.shape)} {plain.dtype}".encode())
            digest.update(plain.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(name: str, tensor: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a quantized one is made of, by name; any other is its own."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    parts, _ = tensor.__tensor_flatten__()
    for part in parts:
        yield from _plain(f"{name}.{part}", getattr(tensor, part))


def rows_fingerprint(split: EncodedSplit) -> str:
    """Names the token ids of every row, in order, and the branches of answers behind the text."""
    digest = hashlib.blake2b(digest_size=16)
    for row in split.rows:
        digest.update(torch.tensor([len(row.input_ids), *row.input_ids, *row.branches]).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class TrunkKey:
    """What makes two computations of the trunk the same."""

    trunk: str
    # `TrunkHash.entering(layer)`: weights below the layer, their number format, attention implementation, versions.
    rows: str
    # `rows_fingerprint`.

    @property
    def name(self) -> str:
        return hashlib.blake2b(f"{self.trunk} {self.rows}".encode(), digest_size=12).hexdigest()


# Several processes of one run


class Ranks(Protocol):
    """The processes that build together, as Lightning's strategies for several know them."""

    global_rank: int
    world_size: int
    local_rank: int
    # On its node.
    node_rank: int
    num_nodes: int

    def barrier(self, name: str | None = None) -> None: ...

    def broadcast(self, obj: Any, src: int = 0) -> Any: ...

    def reduce_boolean_decision(self, decision: bool) -> bool: ...  # whether all say so


class Alone:
    """One process."""

    global_rank, world_size, local_rank, node_rank, num_nodes = 0, 1, 0, 0, 1

    def barrier(self, name: str | None = None) -> None:
        pass

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return obj

    def reduce_boolean_decision(self, decision: bool) -> bool:
        return decision


# The cache


@dataclass(frozen=True)
class Plan:
    """Where the states of some splits go, and why.

    Attributes:
        mode: `memory`, `disk` or `off`.
        reason: one line for people.
    """

    mode: str
    reason: str


class TrunkCache:
    """Serves the trunk's states for the splits of a run.

    Args:
        mode: `memory`, `disk`, `off`, or `auto`: disk where the states fit its budget, for later runs to reuse;
            else memory; else off.
        max_bytes: the budget, over all entries on disk or of this run in memory; None is a quarter of what is free.
        folder: of the entries; None is `trunk` in the user cache folder.
        belongs_to: names for `lpt cache list`, such as backbone and task.
        say: takes lines for people.
    """

    def __init__(
        self,
        mode: str = "auto",
        max_bytes: int | None = None,
        folder: Path | None = None,
        belongs_to: dict[str, str] | None = None,
        say: Callable[[str], None] = print,
    ):
        self.mode, self.max_bytes = mode, max_bytes
        self.folder = trunk_folder() if folder is None else folder
        self.belongs_to, self.say = belongs_to or {}, say
        self.plan: Plan | None = None
        self.facts: dict[str, Any] = {}
        self._hash: TrunkHash | None = None

    def prepare(self, backbone: SplitBackbone, splits: dict[str, EncodedSplit], ranks: Ranks | None = None) -> Plan:
        """Decide, once, where the states of these splits go, and say so."""
        ranks = ranks or Alone()
        needed = sum(_bytes(backbone, split) for split in splits.values())
        # Free space may look different to each process.
        self.plan = plan = ranks.broadcast(self._decide(backbone, needed, ranks.world_size))
        self.facts = {"mode": plan.mode, "bytes": 0 if plan.mode == "off" else needed, "built": [], "reused": []}
        if ranks.global_rank == 0:
            self.say(f"trunk cache: {plan.reason}")
        return plan

    def _decide(self, backbone: SplitBackbone, needed: int, world_size: int) -> Plan:
        size = f"{human_bytes(needed)} of states entering layer {backbone.layer}"
        if self.mode == "off":
            return Plan("off", "off, as asked")
        if backbone.varying_trunk:
            return Plan("off", f"off, because {backbone.varying_trunk}")
        memory = self.max_bytes if self.max_bytes is not None else int(SHARE * psutil.virtual_memory().available)
        disk = self._disk_budget()
        if self.mode in ("auto", "disk") and needed <= disk:
            return Plan("disk", f"disk, {size}")
        if self.mode in ("auto", "memory") and needed <= memory and world_size == 1:
            return Plan("memory", f"memory, {size}")
        budget = {"disk": disk, "memory": memory}.get(self.mode, max(disk, memory))
        if self.mode == "memory" and world_size > 1:
            return Plan("off", f"off, because {world_size} processes cannot share memory; use cache=disk")
        return Plan("off", f"off, because {size} exceed the budget of {human_bytes(budget)} (cache.max_bytes)")

    def states(
        self, backbone: SplitBackbone, split: EncodedSplit, name: str, pad_id: int, ranks: Ranks | None = None
    ) -> RaggedStates | None:
        """The states of a split, opened or computed; None where the cache is off.

        Every process of a run calls this together; each of the first node computes its share.
        """
        assert self.plan is not None, "prepare first"
        ranks = ranks or Alone()
        if self.plan.mode == "off":
            return None
        if self.plan.mode == "memory":
            states = RaggedStates(_empty(backbone, split), split.lengths)
            self._compute(backbone, split, name, pad_id, states, ranks)
            self.facts["built"].append(name)
            return states
        try:
            return self._on_disk(backbone, split, name, pad_id, ranks)
        except _UnusableDiskError as error:
            self.plan = Plan("off", f"off, because {error}")
            self.facts["mode"] = "off"
            if ranks.global_rank == 0:
                self.say(f"warning: trunk cache: {self.plan.reason}; the run goes on without it")
            return None

    def _on_disk(
        self, backbone: SplitBackbone, split: EncodedSplit, name: str, pad_id: int, ranks: Ranks
    ) -> RaggedStates:
        if self._hash is None:
            self._hash = TrunkHash(backbone)
        rows = rows_fingerprint(split)
        key = self._key(backbone.layer, rows)
        place = self.folder / key.name
        with ExitStack() as held:
            # The first process looks, and holds the lock for all; all of them learn what it found.
            found = self._look(held, place, key, backbone, split) if ranks.global_rank == 0 else None
            found = ranks.broadcast(found)
            _raise(found.problem)
            if not found.there:
                self._build(place, key, backbone, split, name, pad_id, ranks, found.below)
            self._check_shared(place, ranks)
            states = RaggedStates(_map(place / STATES, backbone, split), split.lengths)
            ranks.barrier("trunk cache opened")
        self.facts["reused" if found.there else "built"].append(name)
        return states

    def _look(
        self, held: ExitStack, place: Path, key: TrunkKey, backbone: SplitBackbone, split: EncodedSplit
    ) -> "_Found":
        """Whether the entry is there; if not, room made for it, and the layer below to start from."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(place.with_suffix(".lock")))
            if self._verified(place, key, backbone, split):
                return _Found(there=True)
            self._make_room(place, _bytes(backbone, split))
            return _Found(there=False, below=self._nearest_below(backbone, split, key.rows))
        except OSError as error:
            return _Found(there=False, problem=error)

    def _verified(self, place: Path, key: TrunkKey, backbone: SplitBackbone, split: EncodedSplit) -> bool:
        """Whether there is an entry and it is what it says; one that is not is removed."""
        if not place.exists():
            return False
        try:
            entry = json.loads((place / ENTRY).read_text(encoding="utf-8"))
            whole = entry["key"] == asdict(key) and (place / STATES).stat().st_size == _bytes(backbone, split)
            whole = whole and _checksum(place / STATES) == entry["checksum"]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            self.say(f"trunk cache: {place.name} is damaged and is computed again")
            shutil.rmtree(place, ignore_errors=True)
            return False
        os.utime(place / ENTRY)  # used now: the last to be evicted
        return True

    def _make_room(self, place: Path, needed: int) -> None:
        """Reserve the file, least recently used entries evicted for it.

        Raises:
            OSError: for instance, the disk is full.
        """
        budget = self._disk_budget()
        for entry in sorted(entries(self.folder), key=lambda entry: entry.used):
            if self._used() + needed <= budget:
                break
            _remove(entry.place)
        partial = place.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            with (partial / STATES).open("wb") as file:
                # Reserved now: writing to a mapped file on a full disk would kill the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, max(needed, 1))
                else:  # macOS
                    for start in range(0, needed, 2**24):
                        file.write(bytes(min(2**24, needed - start)))
                file.truncate(needed)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _build(
        self,
        place: Path,
        key: TrunkKey,
        backbone: SplitBackbone,
        split: EncodedSplit,
        name: str,
        pad_id: int,
        ranks: Ranks,
        below: int,
    ) -> None:
        # Two nodes that write to one mapped file of a network disk lose rows where these meet: whole pages travel.
        if ranks.node_rank == 0:
            states = RaggedStates(_map(place.with_suffix(".partial") / STATES, backbone, split, True), split.lengths)
            lower = None
            if below:
                lower_place = self.folder / self._key(below, key.rows).name
                lower = RaggedStates(_map(lower_place / STATES, backbone, split), split.lengths)
            self._compute(backbone, split, name, pad_id, states, ranks, lower, max(below, 1))
        ranks.barrier("trunk cache computed")
        problem = None
        if ranks.global_rank == 0:
            problem = self._publish(place, key, backbone, split, name, flush=ranks.num_nodes > 1)
        _raise(ranks.broadcast(problem))

    def _check_shared(self, place: Path, ranks: Ranks) -> None:
        """Whether every process sees the entry that the first one sees, and not one of its own node's."""
        try:
            entry = (place / ENTRY).read_text(encoding="utf-8")
        except OSError:
            entry = None
        if not ranks.reduce_boolean_decision(entry == ranks.broadcast(entry)):
            raise _UnusableDiskError(
                f"not every node sees {self.folder}; set LPT_CACHE to a folder on a disk that all of them share"
            )

    def _publish(
        self, place: Path, key: TrunkKey, backbone: SplitBackbone, split: EncodedSplit, name: str, flush: bool
    ) -> OSError | None:
        """Describe what was computed and move it to its place; what went wrong, if it did."""
        partial = place.with_suffix(".partial")
        facts = {"layer": backbone.layer, "split": name, "rows": len(split), "bytes": _bytes(backbone, split)}
        try:
            if flush:  # as other nodes read what has reached the disk
                with (partial / STATES).open("rb+") as file:
                    os.fsync(file.fileno())
            entry = {
                "key": asdict(key),
                "checksum": _checksum(partial / STATES),
                **self.belongs_to,
                **facts,
                "created": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
            (partial / ENTRY).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, place)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            return error
        return None

    @torch.no_grad()
    def _compute(
        self,
        backbone: SplitBackbone,
        split: EncodedSplit,
        name: str,
        pad_id: int,
        into: RaggedStates,
        ranks: Ranks,
        lower: RaggedStates | None = None,
        start: int = 1,
    ) -> None:
        """This process's share, in batches of like length, from the states entering layer `start` if they are given."""
        was_training = backbone.training
        backbone.eval()
        world = ranks.world_size // ranks.num_nodes
        batches = EvaluationBatches(split.lengths, 32, ranks.local_rank, world)
        with _bar(f"trunk, {name}", len(split), ranks.global_rank == 0) as advance:
            for items in batches:
                batch = split.collate(items, pad_id).to(backbone.model.device)
                if lower is None:
                    h = backbone.embed(batch.input_ids, batch.attention_mask)
                else:
                    h = lower.pad([i for i, _ in items]).to(backbone.model.device)
                h = backbone.run(h, batch.attention_mask, start, backbone.layer - 1).cpu()
                for place, (i, _) in enumerate(items):
                    into.row(i).copy_(h[place, : into.lengths[i]])
                advance(len(items) * world)
        backbone.train(was_training)

    def _nearest_below(self, backbone: SplitBackbone, split: EncodedSplit, rows: str) -> int:
        """The highest layer below k whose entering states are on disk; 0 if there is none."""
        for layer in range(backbone.layer - 1, 0, -1):
            key = self._key(layer, rows)
            if self._verified(self.folder / key.name, key, backbone, split):
                return layer
        return 0

    def _key(self, layer: int, rows: str) -> TrunkKey:
        assert self._hash is not None
        return TrunkKey(self._hash.entering(layer), rows)

    def _disk_budget(self) -> int:
        return self.max_bytes if self.max_bytes is not None else int(SHARE * (_free(self.folder) + self._used()))

    def _used(self) -> int:
        return sum(entry.bytes for entry in entries(self.folder))


@dataclass(frozen=True)
class _Found:
    """What the first process of a run found at an entry's place."""

    there: bool
    below: int = 0
    # The layer whose entering states are on disk; 0 if there is none.
    problem: OSError | None = None


class _UnusableDiskError(Exception):
    """The disk cannot be used, and every process of the run knows."""


def _raise(problem: OSError | None) -> None:
    if problem is not None:
        raise _UnusableDiskError("the disk is full" if problem.errno == errno.ENOSPC else str(problem))


@dataclass(frozen=True)
class Entry:
    """One entry on disk, as `lpt cache list` shows it."""

    place: Path
    facts: dict[str, Any]
    bytes: int
    used: float
    # Seconds since the epoch.


def entries(folder: Path) -> list[Entry]:
    """What is in a cache folder; half-written and unreadable entries count too."""
    found = []
    for place in sorted(folder.glob("*")) if folder.is_dir() else []:
        if not place.is_dir():
            continue
        try:
            facts = json.loads((place / ENTRY).read_text(encoding="utf-8"))
            used = (place / ENTRY).stat().st_mtime
        except (OSError, ValueError):
            facts, used = {}, 0.0
        found.append(Entry(place, facts, sum(f.stat().st_size for f in place.glob("*")), used))
    return found


def clear(folder: Path) -> int:
    """Remove every entry but those being built; what a run has open stays readable to it. Returns bytes removed."""
    found = entries(folder)
    for entry in found:
        _remove(entry.place)
    return sum(entry.bytes for entry in found if not entry.place.exists())


def _remove(place: Path) -> None:
    """An entry; or what a killed run left of one, unless another run is building it."""
    if place.suffix == ".partial":
        try:
            with FileLock(place.with_suffix(".lock"), timeout=0):
                shutil.rmtree(place, ignore_errors=True)
        except Timeout:
            pass
    else:
        shutil.rmtree(place, ignore_errors=True)


def trunk_folder() -> Path:
    """Where entries are, unless a cache is told otherwise."""
    return cache_dir() / "trunk"


def _bytes(backbone: SplitBackbone, split: EncodedSplit) -> int:
    return sum(split.lengths) * backbone.hidden_size * backbone.model.dtype.itemsize


def _empty(backbone: SplitBackbone, split: EncodedSplit) -> Tensor:
    return torch.empty(sum(split.lengths), backbone.hidden_size, dtype=backbone.model.dtype)


def _map(path: Path, backbone: SplitBackbone, split: EncodedSplit, writable: bool = False) -> Tensor:
    """The file as a tensor; pages come in as they are read."""
    count = sum(split.lengths) * backbone.hidden_size
    try:
        flat = torch.from_file(str(path), shared=writable, size=count, dtype=backbone.model.dtype)
    except RuntimeError as error:
        raise OSError(errno.EIO, f"cannot map {path}: {error}") from error
    return flat.view(-1, backbone.hidden_size)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _free(folder: Path) -> int:
    existing = folder
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def human_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


@contextmanager
def _bar(description: str, total: int, visible: bool) -> Iterator[Callable[[int], None]]:
    with Progress(console=console, transient=True, disable=not visible or not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
