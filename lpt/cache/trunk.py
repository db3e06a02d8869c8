"""The trunk computed once: states entering layer k, per example, kept and reused.

Below layer k nothing depends on what is trained, so with the trunk in eval mode its output is a constant of the
example. It is computed in one pass and then read by every epoch, evaluation, seed, generator and prompt length; on
disk by later runs too, and the states of a lower layer are where those of a higher one start from.

An entry on disk is named by its content (`lpt.cache.key`), written beside its place and moved there when it is
complete (`lpt.cache.entries`), verified when it is opened, and computed again when it is not what it says.
"""

import errno
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from lpt.backbones.split import SplitBackbone
from lpt.cache import entries
from lpt.cache.compute import Job, state_bytes
from lpt.cache.entries import ENTRY, STATES, human_bytes
from lpt.cache.facts import CacheFacts
from lpt.cache.key import TrunkHash, TrunkKey, rows_fingerprint
from lpt.cache.ranks import Alone, Ranks
from lpt.data.batches import EncodedSplit, RaggedStates

SHARE = 0.25  # of free memory or disk that caches take, unless given a budget


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
    """The trunk's states for the splits of a run.

    Args:
        mode: `memory`, `disk`, `off`, or `auto`: disk where the states fit its budget, for later runs to reuse;
            else memory; else off.
        max_bytes: the budget, over all entries on disk or of this run in memory; None is a quarter of what is free.
        folder: of the entries; None is `trunk` in the user cache folder.
        belongs_to: names for `lpt cache list`, such as backbone and task.
        say: takes lines for people.

    Attributes:
        plan: what `prepare` has decided; None before.
        facts: what became of it so far.
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
        self.folder = entries.trunk_folder() if folder is None else folder
        self.belongs_to, self.say = belongs_to or {}, say
        self.plan: Plan | None = None
        self.facts = CacheFacts("off", 0, [], [])
        self._hash: TrunkHash | None = None

    def prepare(self, backbone: SplitBackbone, splits: dict[str, EncodedSplit], ranks: Ranks | None = None) -> Plan:
        """Decide, once, where the states of these splits go, and say so."""
        ranks = ranks or Alone()
        needed = sum(state_bytes(backbone, split) for split in splits.values())
        # Free space may look different to each process.
        plan: Plan = ranks.broadcast(self._decide(backbone, needed, ranks.world_size))
        self.plan = plan
        self.facts = CacheFacts(plan.mode, 0 if plan.mode == "off" else needed, [], [])
        if ranks.global_rank == 0:
            self.say(f"trunk cache: {plan.reason}")
        return plan

    def states(
        self, backbone: SplitBackbone, split: EncodedSplit, name: str, pad_id: int, ranks: Ranks | None = None
    ) -> RaggedStates | None:
        """The states of a split, opened or computed; None where the cache is off.

        Every process of a run calls this together; each of the first node computes its share.
        """
        assert self.plan is not None, "prepare first"
        job = Job(backbone, split, name, pad_id, ranks or Alone())
        if self.plan.mode == "off":
            return None
        if self.plan.mode == "memory":
            states = job.in_memory()
            job.compute(states)
            self.facts.built.append(name)
            return states
        try:
            return self._on_disk(job)
        except _UnusableDiskError as error:
            self.plan = Plan("off", f"off, because {error}")
            self.facts = replace(self.facts, mode="off")
            if job.ranks.global_rank == 0:
                self.say(f"warning: trunk cache: {self.plan.reason}; the run continues without it")
            return None

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

    def _disk_budget(self) -> int:
        if self.max_bytes is not None:
            return self.max_bytes
        return int(SHARE * (entries.free_bytes(self.folder) + entries.used_bytes(self.folder)))

    # On disk

    def _on_disk(self, job: Job) -> RaggedStates:
        if self._hash is None:
            self._hash = TrunkHash(job.backbone)
        key = self._key(job.backbone.layer, rows_fingerprint(job.split))
        place = self.folder / key.name
        with ExitStack() as held:
            # The first process looks, and holds the lock for all; all of them learn what it found.
            found = self._look(held, place, key, job) if job.ranks.global_rank == 0 else None
            found = job.ranks.broadcast(found)
            _raise(found.problem)
            if not found.there:
                self._build(place, key, job, found.below)
            self._check_shared(place, job.ranks)
            states = job.in_file(place / STATES)
            job.ranks.barrier("trunk cache opened")
        (self.facts.reused if found.there else self.facts.built).append(job.name)
        return states

    def _look(self, held: ExitStack, place: Path, key: TrunkKey, job: Job) -> "_Found":
        """Whether the entry is there; if not, room made for it, and the layer below to start from."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(entries.lock(place))
            if self._verified(key, job):
                return _Found(there=True)
            entries.reserve(place, job.bytes, self._disk_budget())
            # From the nearest layer below k that has an entry.
            for layer in range(job.backbone.layer - 1, 0, -1):
                if self._verified(self._key(layer, key.rows), job):
                    return _Found(there=False, below=layer)
            return _Found(there=False)
        except OSError as error:
            return _Found(there=False, problem=error)

    def _verified(self, key: TrunkKey, job: Job) -> bool:
        intact = entries.verify(self.folder / key.name, asdict(key), job.bytes)
        if intact is False:
            self.say(f"trunk cache: {key.name} is damaged and is computed again")
        return bool(intact)

    def _build(self, place: Path, key: TrunkKey, job: Job, below: int) -> None:
        """Compute the states, starting from those entering layer `below` (0: from the text), and publish them."""
        ranks = job.ranks
        # Two nodes that write to one mapped file of a network disk lose rows where these meet: whole pages travel.
        if ranks.node_rank == 0:
            states = job.in_file(entries.partial(place) / STATES, writable=True)
            lower = job.in_file(self.folder / self._key(below, key.rows).name / STATES) if below else None
            job.compute(states, lower, max(below, 1))
        ranks.barrier("trunk cache computed")
        problem = None
        if ranks.global_rank == 0:
            facts = {"layer": job.backbone.layer, "split": job.name, "rows": len(job.split), "bytes": job.bytes}
            try:
                entries.publish(place, asdict(key), self.belongs_to | facts, flush=ranks.num_nodes > 1)
            except OSError as error:
                problem = error
        _raise(ranks.broadcast(problem))

    def _check_shared(self, place: Path, ranks: Ranks) -> None:
        """Check that every process sees the entry that the first one sees, and not one of its own node's."""
        try:
            entry = (place / ENTRY).read_text(encoding="utf-8")
        except OSError:
            entry = None
        if not ranks.reduce_boolean_decision(entry == ranks.broadcast(entry)):
            raise _UnusableDiskError(
                f"not every node sees {self.folder}; set LPT_CACHE to a folder on a disk that all of them share"
            )

    def _key(self, layer: int, rows: str) -> TrunkKey:
        assert self._hash is not None
        return TrunkKey(self._hash.entering(layer), rows)


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
