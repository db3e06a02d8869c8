"""Many tasks over one reading: adapters of different tasks, layers, methods and heads over one loaded backbone."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from lpt.adapter import AdapterConfig, adapter_folder, load_adapter_config
from lpt.backbones.context import Context, KeysValues
from lpt.backbones.placement import Placement
from lpt.backbones.shared import SharedPretrained
from lpt.backbones.split import SplitBackbone
from lpt.classifier import CHUNK, LatePromptClassifier, Prediction, Text, check_texts, find_backbone
from lpt.data.batches import EvaluationBatches
from lpt.data.templates import Encoded
from lpt.errors import LptError, did_you_mean
from lpt.shared_reading import Memory, Merged, Read, Reader, merge, padded

Adapter = str | Path | LatePromptClassifier
Row = tuple[str, ...]


class MultiTaskClassifier:
    """Several trained tasks over one backbone, which is loaded once and reads each text once for all that can share it.

    Tasks share all that the frozen model alone computes: states up to their layers, and of read-only tasks the keys and
    values above. A task that trains the embeddings (`method=full` from the first layer on) shares nothing but the
    backbone's untrained tensors; one that trains the backbone's weights has its own copy of those.

    Args:
        adapters: run folders, adapter folders, hub ids, or classifiers, which stay as they are; in a dict by a name of
            yours, otherwise named as the task that each was trained on.
        accelerator: `auto`, `cpu` or `gpu`.
        precision: `auto`, `32`, `bf16` or `16`, of the backbone.
        quantization: of the backbone's layers, `int8` or `nf4`.
        backbone: where the backbone is now, if not where the first adapter was trained on it.
        remember: bytes that may be taken by what was read, so that another question about a text is cheap.

    Raises:
        LptError: no adapters, or one that is not in a list; two of one name; adapters of different backbones; or as
            `LatePromptClassifier`.
    """

    def __init__(
        self,
        adapters: Iterable[Adapter] | Mapping[str, Adapter],
        accelerator: str = "auto",
        precision: str = "auto",
        quantization: str | None = None,
        backbone: str | Path | None = None,
        remember: int = 0,
    ):
        if isinstance(adapters, str | Path | LatePromptClassifier):
            raise LptError("MultiTaskClassifier takes a list of adapters, or a dict of them by name: [adapter]")
        if isinstance(remember, bool) or not isinstance(remember, int) or remember < 0:
            raise LptError(f"remember is {remember!r}; give a number of bytes from 0 on, such as 256_000_000")
        self._placement, self._quantization = Placement.choose(accelerator, precision), quantization
        self._backbone, self._memory = backbone, Memory(remember)
        self._pretrained: SharedPretrained | None = None
        self._classifiers: dict[str, LatePromptClassifier] = {}
        self._readers: dict[Any, Reader] = {}
        named: Iterable[tuple[str | None, Adapter]] = (
            adapters.items() if isinstance(adapters, Mapping) else ((None, adapter) for adapter in adapters)
        )
        for name, adapter in named:
            self.add(adapter, name)
        if not self._classifiers:
            raise LptError("MultiTaskClassifier got no adapters; give at least one")

    @property
    def tasks(self) -> dict[str, AdapterConfig]:
        """Name -> what the adapter is, in the order given."""
        return {name: classifier.config for name, classifier in self._classifiers.items()}

    def add(self, adapter: Adapter, name: str | None = None) -> str:
        """Load one more adapter, and return its name.

        Raises:
            LptError: as of the constructor; the others stay as they are.
        """
        if isinstance(adapter, LatePromptClassifier):
            with TemporaryDirectory(prefix="lpt-") as folder:
                adapter.save_pretrained(folder)
                return self._add(Path(folder), name)
        return self._add(adapter_folder(adapter), name)

    def remove(self, name: str) -> None:
        """Forget a task.

        Raises:
            LptError: there is no such task, or no other.
        """
        self._check_known([name])
        if len(self._classifiers) == 1:
            raise LptError(f"{name!r} is the only task; a MultiTaskClassifier has at least one")
        self._classifiers = {other: one for other, one in self._classifiers.items() if other != name}
        self._forget()

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: str, tasks: Sequence[str] | None = None, batch_size: int = 32
    ) -> dict[str, Prediction]: ...

    @overload
    def predict(
        self, texts: Iterable[Text], tasks: Sequence[str] | None = None, batch_size: int = 32
    ) -> dict[str, list[Prediction]]: ...

    def predict(
        self, texts: str | Iterable[Text], tasks: Sequence[str] | None = None, batch_size: int = 32
    ) -> dict[str, Prediction] | dict[str, list[Prediction]]:
        """What each task says of each text: task -> predictions, in the order given; of one text, task -> prediction.

        Args:
            texts: any number of texts, or of pairs of texts; or a single text.
            tasks: names; None: all.
            batch_size: rows at a time.

        Raises:
            LptError: an unknown task, or as of `LatePromptClassifier.predict`.
        """
        if isinstance(tasks, str):
            raise LptError(f"tasks is {tasks!r}; give a list of names: [{tasks!r}]")
        check_texts(texts)
        names = list(self._classifiers) if tasks is None else list(dict.fromkeys(tasks))
        self._check_known(names)
        single = isinstance(texts, str)
        found: dict[str, list[Prediction]] = {name: [] for name in names}
        rest = enumerate([texts] if single else texts)
        while chunk := list(islice(rest, CHUNK)):
            asked = [_Asked(i, text, names) for i, text in chunk]  # type: ignore[arg-type]
            for name, predictions in self._answers(asked, batch_size).items():
                found[name] += predictions.values()
        return {name: predictions[0] for name, predictions in found.items()} if single else found

    def predict_rows(self, rows: Iterable[tuple[str, Text]], batch_size: int = 32) -> list[Prediction]:
        """Answer rows of different tasks, in the order given.

        Args:
            rows: task and text, or pair of texts, of each.
            batch_size: rows at a time.

        Raises:
            LptError: as `predict`.
        """
        rows = list(rows)
        for i, row in enumerate(rows):
            if not (isinstance(row, list | tuple) and len(row) == 2):
                raise LptError(f"rows[{i}] is {row!r}; give pairs of a task and a text: ('mood', 'Thank you!')")
        self._check_known([task for task, _ in rows])
        asked: dict[Text, _Asked] = {}  # a text that several tasks are asked about is read once
        texts = [tuple(text) if isinstance(text, list) else text for _, text in rows]
        for i, ((task, _), text) in enumerate(zip(rows, texts, strict=True)):
            names = asked.setdefault(text, _Asked(i, text, [])).names
            if task not in names:
                names.append(task)
        place = {text: i for i, text in enumerate(asked)}
        found = self._answers(list(asked.values()), batch_size)
        return [found[task][place[text]] for (task, _), text in zip(rows, texts, strict=True)]

    # Adapters

    def _add(self, folder: Path, name: str | None) -> str:
        config = load_adapter_config(folder)
        name = config.task if name is None else name
        if name in self._classifiers:
            raise LptError(
                f"there are two adapters named {name!r}; give each a name of its own, as a dict: {{name: folder}}"
            )
        if self._pretrained is None:
            self._pretrained = SharedPretrained.of(find_backbone(config, self._backbone))
        first = next(iter(self._classifiers.items()), None)
        if first is not None and config.weights != first[1].config.weights:
            raise LptError(
                f"{folder}: was trained over {config.backbone}, and {first[0]!r} over {first[1].config.backbone}; one "
                "MultiTaskClassifier has one backbone"
            )
        classifier = LatePromptClassifier.over(self._pretrained, folder, config, self._placement, self._quantization)
        if classifier.method.trains_backbone and classifier.method.backbone.twins is not None:
            # It reads by the frozen layers that all share, and needs no copies of them.
            classifier.method.backbone.twins = list(self._split.layers)[classifier.method.backbone.layer - 1 :]
        self._classifiers = self._classifiers | {name: classifier}
        self._forget()
        return name

    def _forget(self) -> None:
        """Readers read for the tasks that there are."""
        self._readers, self._memory = {}, Memory(self._memory.limit)

    @property
    def _split(self) -> SplitBackbone:
        """The backbone that no method changes."""
        assert self._pretrained is not None
        placement = self._placement
        if "split" not in self._pretrained.loaded:
            model = self._pretrained.load_model(placement.dtype, self._quantization, placement.accelerator)
            self._pretrained.loaded["split"] = SplitBackbone(model).to(placement.device).eval()
        split: SplitBackbone = self._pretrained.loaded["split"]
        return split

    def _check_known(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._classifiers:
                known = list(self._classifiers)
                raise LptError(f"there is no task {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})")

    # Answers

    def _answers(self, asked: list["_Asked"], batch_size: int) -> dict[str, dict[int, Prediction]]:
        """Task -> place in `asked` -> prediction, in order of places."""
        places: dict[str, list[int]] = {}
        for i, one in enumerate(asked):
            for name in one.names:
                places.setdefault(name, []).append(i)
        rows: dict[str, dict[int, Row]] = {}
        for name, at in places.items():
            checked = self._classifiers[name].rows([asked[i].text for i in at], [asked[i].number for i in at])
            rows[name] = dict(zip(at, checked, strict=True))
        found: dict[str, dict[int, Prediction]] = {}
        groups: dict[Any, dict[str, dict[int, Row]]] = {}
        for name, of_task in rows.items():
            groups.setdefault(_shared_by(name, self._classifiers[name]), {})[name] = of_task
        for group, of_group in groups.items():
            for name, scores in self._scores(group, of_group, batch_size).items():
                order = sorted(scores)
                told = self._classifiers[name].predictions_of(torch.stack([scores[i] for i in order]))
                found[name] = dict(zip(order, told, strict=True))
        return {name: found[name] for name in places}

    @torch.inference_mode()
    def _scores(self, group: Any, rows: dict[str, dict[int, Row]], batch_size: int) -> dict[str, dict[int, Tensor]]:
        """Task -> place -> class scores `[C]`, float64, of tasks that share their reading."""
        if isinstance(group, str):
            (name,) = rows
            scores_NC = self._classifiers[name].scores_of(list(rows[name].values()), batch_size)
            return {name: dict(zip(rows[name], scores_NC, strict=True))}
        members = [name for name, one in self._classifiers.items() if _shared_by(name, one) == group]
        every = {i: row for of_task in rows.values() for i, row in of_task.items()}
        # What is remembered is read for all tasks of the group, whichever are asked.
        encoded = self._encoded(dict.fromkeys(members, every) if self._memory.limit else rows)
        merged = {i: merge(inputs) for i, inputs in encoded.items()}
        order, reader = list(merged), self._reader(group, members)
        found: dict[str, dict[int, Tensor]] = {name: {} for name in rows}
        for items in EvaluationBatches([len(merged[i].input_ids) for i in order], batch_size):
            batch = [order[item] for item, _ in items]
            read = reader.read([merged[i] for i in batch], next(iter(self._classifiers.values())).pad_id)
            for name, of_task in rows.items():
                at = [place for place, i in enumerate(batch) if i in of_task]
                if at:
                    inputs = [(merged[batch[place]], encoded[batch[place]][name]) for place in at]
                    scores_BC = self._over(name, inputs, read, at, len(batch), reader.keys_values_from)
                    found[name] |= {batch[place]: row for place, row in zip(at, scores_BC.double().cpu(), strict=True)}
        return found

    def _encoded(self, rows: dict[str, dict[int, Row]]) -> dict[int, dict[str, Encoded]]:
        """Place -> task -> the row in the task's template; a template that several tasks have is written once."""
        encoded: dict[int, dict[str, Encoded]] = {}
        written: dict[str, dict[int, Encoded]] = {}
        for name, of_task in rows.items():
            template = self._classifiers[name].template
            done = written.setdefault(template.text, {})
            missing = {i: row for i, row in of_task.items() if i not in done}
            done |= dict(zip(missing, template.encode(list(missing.values())), strict=True))
            for i in of_task:
                encoded.setdefault(i, {})[name] = done[i]
        return encoded

    def _over(
        self, name: str, inputs: list[tuple[Merged, Encoded]], read: Read, at: list[int], rows: int, first: int | None
    ) -> Tensor:
        """Class scores of one task, `[B, C]`, over a reading that it shares.

        Args:
            name: of the task.
            inputs: B rows, as read and as the task has them.
            read: what was read of the batch that they are part of.
            at: their places in it.
            rows: of that batch.
            first: the first layer whose keys and values were read.
        """
        classifier, device = self._classifiers[name], self._split.model.device
        layer = classifier.method.backbone.layer
        h_BSH = read.states[layer] if len(at) == rows else read.states[layer][torch.tensor(at, device=device)]
        if not any(merged.branched for merged, _ in inputs):
            kinds_BS = padded([merged.kinds for merged, _ in inputs], 0, h_BSH.shape[1])
            mask = None if bool((kinds_BS == 1).all()) else kinds_BS if inputs[0][1].branches else kinds_BS.bool()
            position = [row.readout_position for _, row in inputs]
        elif classifier.method.read_only:  # all other tails are padding to it
            mask = torch.zeros(h_BSH.shape[:2], dtype=torch.bool)
            for i, (merged, _) in enumerate(inputs):
                mask[i, merged.places(name)] = True
            position = [merged.places(name)[-1] for merged, _ in inputs]
        else:  # it computes all its tokens, and those alone
            places_BT = padded([merged.places(name) for merged, _ in inputs], 0)
            h_BSH = h_BSH.gather(1, places_BT.to(device)[:, :, None].expand(-1, -1, h_BSH.shape[2]))
            length_B = torch.tensor([len(row.input_ids) for _, row in inputs])
            mask = torch.arange(places_BT.shape[1]) < length_B[:, None]
            position = [row.readout_position for _, row in inputs]
        keys_values = None
        if classifier.method.read_only:
            assert first is not None
            assert read.keys_values is not None
            keys_values = _Part(
                read.keys_values, layer - first, None if len(at) == rows else torch.tensor(at, device=device)
            )
        context = Context(h_BSH, None if mask is None else mask.to(device), keys_values)
        return classifier.scores_over(context, torch.tensor(position, device=device))

    def _reader(self, group: Any, members: list[str]) -> Reader:
        if group not in self._readers:
            methods = [self._classifiers[name].method for name in members]
            read_only = [method.backbone.layer for method in methods if method.read_only]
            layers = {method.backbone.layer for method in methods}
            self._readers[group] = Reader(self._split, layers, min(read_only, default=None), self._memory)
        return self._readers[group]


class _Asked(NamedTuple):
    """A text, and the tasks that are asked about it."""

    number: int
    # Where it stood in what the caller gave, for errors.
    text: Text
    names: list[str]


class _Part:
    """The keys and values of the layers from some layer on, of some rows."""

    def __init__(self, every: KeysValues, skip: int, rows: Tensor | None):
        self.every, self.skip, self.rows = every, skip, rows

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = self.every[layer + self.skip]
        return (keys, values) if self.rows is None else (keys[self.rows], values[self.rows])


def _shared_by(name: str, classifier: LatePromptClassifier) -> Any:
    """What tasks that read the same have in common; of a task that reads alone its name.

    Decoders: the template up to the end of the last text, as tails may differ. Encoders: all of it.
    """
    template = classifier.template
    if classifier.method.backbone.train_embeddings:
        return name
    text = template.text
    if template.causal and not template.answers:
        text = text[: text.rindex("}") + 1]
    return text, template.max_length, tuple(template.answers), tuple(template.branches)
