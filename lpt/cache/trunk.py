"""Texts read once: what the frozen model says of them, per example, kept and reused.

Below layer k nothing depends on what is trained, so with the trunk in eval mode the states entering layer k are
constants of the example; of a method that is read-only, the keys and values of the text in layers k..L are too. They
are computed in one pass and then serve every epoch, evaluation, seed, method, generator and prompt length; on disk
later runs too. The states of a lower layer are where those of a higher one start from, and the keys and values of
layers j..L hold those of every k >= j.

An entry on disk is named by its content (`lpt.cache.key`), written beside its place and moved there when it is
complete (`lpt.cache.entries`), verified when it is opened, and computed again when it is not what it says.
"""

import errno
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from lpt.backbones.split import SplitBackbone
from lpt.bars import MOMENT
from lpt.cache import entries
from lpt.cache.compute import Job, KeysValuesJob, R, StatesJob
from lpt.cache.entries import ENTRY, NUMBERS, human_bytes
from lpt.cache.facts import CacheFacts
from lpt.cache.key import TrunkHash, TrunkKey, rows_fingerprint
from lpt.cache.ranks import Alone, Ranks
from lpt.data.batches import EncodedSplit
from lpt.data.ragged import Kept, RaggedKeysValues, RaggedStates

SHARE = 0.25  # of free memory or disk that caches take, unless given a budget


@dataclass(frozen=True)
class Plan:
    """Where what is kept of some splits goes, and why.

    Attributes:
        mode: `memory`, `disk` or `off`.
        reason: one line for people.
        keys_values: whether keys and values are kept besides the states.
    """

    mode: str
    reason: str
    keys_values: bool = False


class TrunkCache:
    """The states entering layer k, and where a method is read-only keys and values, for the splits of a run.

    Keys and values that exceed the budget are not kept: the layers above then read the text from its states again. Nor
    are they on a GPU, which computes them faster than they come to it.

    Args:
        mode: `memory`, `disk`, `off`, or `auto`: disk where it fits the budget, for later runs to reuse; else memory;
            else off.
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
        """Decide, once, where what is kept of these splits goes, and say so."""
        ranks = ranks or Alone()
        jobs = [
            (StatesJob(backbone, s, n, 0, ranks), KeysValuesJob(backbone, s, n, 0, ranks)) for n, s in splits.items()
        ]
        states = sum(job.bytes() for job, _ in jobs)
        keys_values = 0 if backbone.twins is None else sum(job.bytes() for _, job in jobs)
        # Free space may look different to each process.
        plan: Plan = ranks.broadcast(self._decide(backbone, states, keys_values, ranks.world_size))
        self.plan = plan
        kept = 0 if plan.mode == "off" else states + (keys_values if plan.keys_values else 0)
        self.facts = CacheFacts(plan.mode, kept, [], [], plan.keys_values)
        if ranks.global_rank == 0:
            self.say(f"trunk cache: {plan.reason}")
        return plan

    def states(
        self, backbone: SplitBackbone, split: EncodedSplit, name: str, pad_id: int, ranks: Ranks | None = None
    ) -> RaggedStates | None:
        """The states of a split, opened or computed; None where the cache is off.

        Every process of a run calls this together; each of the first node computes its share.
        """
        return self._get(StatesJob(backbone, split, name, pad_id, ranks or Alone()))

    def keys_values(
        self,
        backbone: SplitBackbone,
        split: EncodedSplit,
        name: str,
        pad_id: int,
        states: RaggedStates,
        ranks: Ranks | None = None,
    ) -> RaggedKeysValues | None:
        """The keys and values of a split, opened or computed from its states; None where they are not kept.

        Every process of a run calls this together.
        """
        if self.plan is None or not self.plan.keys_values:
            return None
        return self._get(KeysValuesJob(backbone, split, name, pad_id, ranks or Alone(), states))

    def keep(self, backbone: SplitBackbone, split: EncodedSplit, name: str, pad_id: int) -> Kept | None:
        """What is kept of a split that stands alone, opened or computed; None where the cache is off."""
        self.prepare(backbone, {name: split})
        states = self.states(backbone, split, name, pad_id)
        if states is None:
            return None
        return Kept(states, self.keys_values(backbone, split, name, pad_id, states))

    def _get(self, job: Job[R]) -> R | None:
        assert self.plan is not None, "prepare first"
        if self.plan.mode == "off":
            return None
        if self.plan.mode == "memory":
            kept = job.in_memory()
            self._compute(job, kept)
            self.facts.built.append(job.name)
            return kept
        try:
            return self._on_disk(job)
        except _UnusableDiskError as error:
            self.plan = Plan("off", f"off, because {error}")
            self.facts = replace(self.facts, mode="off", keys_values=False)
            if job.ranks.global_rank == 0:
                self.say(f"warning: trunk cache: {self.plan.reason}; the run continues without it")
            return None

    def _compute(self, job: Job[R], into: R) -> None:
        """Compute, and say how long it took if that was more than a moment."""
        started = time.monotonic()
        job.compute(into)
        seconds = time.monotonic() - started
        if seconds > MOMENT and job.ranks.global_rank == 0:
            self.say(f"trunk cache: read {len(job.split):,} {job.name} texts once in {seconds:.0f} s ({job.what})")

    def _decide(self, backbone: SplitBackbone, states: int, keys_values: int, world_size: int) -> Plan:
        if self.mode == "off":
            return Plan("off", "off, as asked")
        if backbone.varying_trunk:
            return Plan("off", f"off, because {backbone.varying_trunk}")
        budgets = {"disk": self._disk_budget(), "memory": self._memory_budget()}
        if self.mode == "memory" and world_size > 1:
            return Plan("off", f"off, because {world_size} processes cannot share memory; use cache=disk")
        places = [place for place in budgets if self.mode in ("auto", place) and (place == "disk" or world_size == 1)]
        budget = human_bytes(max(budgets[place] for place in places))
        k, last = backbone.layer, backbone.num_layers
        # A GPU would wait for them: a step of RoBERTa-large takes 218 ms with copied ones (experiments/cost.md).
        apart = backbone.model.device.type != "cpu"
        for place in places:
            if keys_values and not apart and states + keys_values <= budgets[place]:
                size = human_bytes(states + keys_values)
                return Plan(
                    place, f"{place}, {size} of states entering layer {k} and keys and values of {k}..{last}", True
                )
        size = f"{human_bytes(states)} of states entering layer {k}"
        what = f"keys and values of {k}..{last}"
        why = f"{what} would take {human_bytes(keys_values)}, more than the budget of {budget} (cache.max_bytes)"
        if apart:
            why = f"a GPU reads the text above faster than {what} are copied to it"
        above = f"; {why}, so every step reads the text above again, without gradient"
        for place in places:
            if states <= budgets[place]:
                return Plan(place, f"{place}, {size}{above if keys_values else ''}")
        return Plan("off", f"off, because {size} exceed the budget of {budget} (cache.max_bytes)")

    def _memory_budget(self) -> int:
        return self.max_bytes if self.max_bytes is not None else int(SHARE * psutil.virtual_memory().available)

    def _disk_budget(self) -> int:
        if self.max_bytes is not None:
            return self.max_bytes
        return int(SHARE * (entries.free_bytes(self.folder) + entries.used_bytes(self.folder)))

    # On disk

    def _on_disk(self, job: Job[R]) -> R:
        if self._hash is None:
            self._hash = TrunkHash(job.backbone)
        rows = rows_fingerprint(job.split)
        key = self._key(job, job.layers[0], rows)
        with ExitStack() as held:
            # The first process looks, and holds the lock for all; all of them learn what it found.
            found = self._look(held, key, job) if job.ranks.global_rank == 0 else None
            found = job.ranks.broadcast(found)
            _raise(found.problem)
            layer = found.layer or job.layers[0]
            place = self.folder / self._key(job, layer, rows).name
            if not found.layer:
                self._build(place, key, job, found.below)
            self._check_shared(place, job.ranks)
            kept = job.in_file(place / NUMBERS, layer)
            job.ranks.barrier("trunk cache opened")
        names = self.facts.reused if found.layer else self.facts.built
        names.append(job.name)
        return kept

    def _look(self, held: ExitStack, key: TrunkKey, job: Job[R]) -> "_Found":
        """Whether an entry is there; if not, room made for it, and the layer below to start from."""
        place = self.folder / key.name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(entries.lock(place))
            for layer in job.layers:
                if self._verified(job, layer, key.rows):
                    return _Found(layer)
            entries.reserve(place, job.bytes(), self._disk_budget())
            # From the nearest layer below k that has an entry.
            for layer in range(job.backbone.layer - 1, 0, -1) if isinstance(job, StatesJob) else ():
                if self._verified(job, layer, key.rows):
                    return _Found(below=layer)
            return _Found()
        except OSError as error:
            return _Found(problem=error)

    def _verified(self, job: Job[R], layer: int, rows: str) -> bool:
        key = self._key(job, layer, rows)
        intact = entries.verify(self.folder / key.name, asdict(key), job.bytes(layer))
        if intact is False:
            self.say(f"trunk cache: {key.name} is damaged and is computed again")
        return bool(intact)

    def _build(self, place: Path, key: TrunkKey, job: Job[R], below: int) -> None:
        """Compute an entry, states from those entering layer `below` (0: from the text), and publish it."""
        ranks = job.ranks
        # Two nodes that write to one mapped file of a network disk lose rows where these meet: whole pages travel.
        if ranks.node_rank == 0:
            kept = job.in_file(entries.partial(place) / NUMBERS, job.layers[0], writable=True)
            if isinstance(job, StatesJob) and below:
                lower = job.in_file(self.folder / self._key(job, below, key.rows).name / NUMBERS, below)
                job = replace(job, below=lower, below_layer=below)
            self._compute(job, kept)
        ranks.barrier("trunk cache computed")
        problem = None
        if ranks.global_rank == 0:
            facts = {"layer": job.backbone.layer, "split": job.name, "rows": len(job.split), "what": job.what}
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

    def _key(self, job: Job[R], layer: int, rows: str) -> TrunkKey:
        assert self._hash is not None
        return TrunkKey(job.hash(self._hash, layer), rows)


@dataclass(frozen=True)
class _Found:
    """What the first process of a run found on disk."""

    layer: int = 0
    # The layer whose entry holds what is wanted; 0 if there is none.
    below: int = 0
    # The layer whose entering states are there to start from; 0 if there is none.
    problem: OSError | None = None


class _UnusableDiskError(Exception):
    """The disk cannot be used, and every process of the run knows."""


def _raise(problem: OSError | None) -> None:
    if problem is not None:
        raise _UnusableDiskError("the disk is full" if problem.errno == errno.ENOSPC else str(problem))
