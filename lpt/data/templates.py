"""Sentences written into a template, as token ids, and the position where the answer is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from lpt.data.literal import LiteralTokenizer
from lpt.data.rows import Sentences
from lpt.errors import LptError


@dataclass(frozen=True)
class Encoded:
    """One tokenized row.

    Attributes:
        input_ids: token ids, answers included.
        readout_position: index of the mask token (encoders) or of the last context token (decoders).
        truncated: whether text was removed to fit.
        branches: the branch, from 2, of each token behind the read-out position, which are the answers to be scored
            (`lpt.heads.branches`).
    """

    input_ids: list[int]
    readout_position: int
    truncated: bool
    branches: tuple[int, ...] = ()


class Template:
    """Write sentences into a template and truncate them, never the template, to `max_length` tokens.

    Special tokens of the tokenizer that are written in a sentence are text (`lpt.data.literal`).

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        text: with `{a}`, and `{b}` for pairs; `{mask}` exactly once for encoders, not at all for decoders.
        causal: whether the backbone is a decoder.
        max_length: maximum number of tokens, special tokens and answers included.
        answers: token ids appended to every row, and their branches (`lpt.heads.branches`).

    Raises:
        LptError: an unknown field, `{mask}` missing or out of place, no `{a}`, a tokenizer without mask token.
    """

    def __init__(
        self,
        tokenizer: Any,
        text: str,
        causal: bool,
        max_length: int,
        answers: tuple[Sequence[int], Sequence[int]] = ((), ()),
    ):
        self.tokenizer, self.text, self.causal = tokenizer, text, causal
        self.answers, self.branches = list(answers[0]), tuple(answers[1])
        self.max_length = max_length - len(self.answers)
        check_template(text, causal)
        if not causal and tokenizer.mask_token is None:
            raise LptError("the tokenizer has no mask token, which the encoder template needs")
        self.parts = _parse(text)
        self.literal = LiteralTokenizer(tokenizer)
        self.pair = "b" in template_fields(text)

    def render(self, sentences: Sentences, alias: Callable[[str], str] = lambda text: text) -> tuple[str, int]:
        """Return the text, and the index of the character where the answer is: the mask's first, or the text's end.

        Args:
            sentences: what is written into the template.
            alias: changes what the template itself has, the mask token included.
        """
        fields = dict(zip("ab", (s.strip() for s in sentences), strict=False))
        text, answer = "", None
        for literal, field in self.parts:
            text += alias(literal)
            if field == "mask":
                answer = len(text)
                text += alias(self.tokenizer.mask_token)
            elif field is not None:
                text += fields[field]
        return text, len(text) if answer is None else answer

    def encode(self, rows: list[Sentences]) -> list[Encoded]:
        """Tokenize rows, truncated where they are too long.

        Raises:
            LptError: the template alone is longer than `max_length`, takes another number of sentences, or has
                no token for a decoder to read.
        """
        expected = 2 if self.pair else 1
        for row in rows:
            if len(row) != expected:
                raise LptError(
                    f"task.template={self.text!r} takes {'{a} and {b}' if self.pair else '{a} alone'}, but a row has "
                    f"{len(row)} sentences"
                )
        encoded = self._tokenize(rows)
        too_long = [i for i, row in enumerate(encoded) if len(row.input_ids) > self.max_length]
        for i in too_long:
            encoded[i] = self._fit(rows[i], len(encoded[i].input_ids))
        if self.answers:
            encoded = [replace(row, input_ids=row.input_ids + self.answers, branches=self.branches) for row in encoded]
        return encoded

    def _tokenize(self, rows: list[Sentences]) -> list[Encoded]:
        if not rows:
            return []
        rendered = [self.render(row) for row in rows]
        tokens = self.tokenizer([text for text, _ in rendered], return_offsets_mapping=True, verbose=False)
        encoded = []
        for row, ids, offsets, (_, character) in zip(
            rows, tokens["input_ids"], tokens["offset_mapping"], rendered, strict=True
        ):
            if any(map(self.literal.needed, row)):
                text, character = self.render(row, self.literal.alias)
                ids, offsets = self.literal.encode(text)
            encoded.append(self._locate(ids, offsets, character))
        return encoded

    def _locate(self, ids: list[int], offsets: list[tuple[int, int]], character: int) -> Encoded:
        if self.causal:
            # Some decoders' tokenizers close the text; the answer is expected before that.
            end = len(ids)
            while (
                end > 1 and ids[end - 1] == self.tokenizer.eos_token_id and offsets[end - 1][0] == offsets[end - 1][1]
            ):
                end -= 1
            if not end:
                raise LptError(f"a row without text leaves nothing to read in task.template={self.text!r}; remove it")
            return Encoded(ids[:end], end - 1, truncated=False)
        # The mask's span may include the space before it.
        mask = self.tokenizer.mask_token_id
        position = next(i for i, (start, stop) in enumerate(offsets) if ids[i] == mask and start <= character < stop)
        return Encoded(ids, position, truncated=False)

    def _fit(self, sentences: Sentences, length: int) -> Encoded:
        """Cut the end of the longest sentence, then of both in turn, until the row fits."""
        while True:
            sentences = tuple(s.strip() for s in sentences)
            starts = [self._token_starts(s) for s in sentences]
            keep = [len(s) for s in starts]
            if not any(keep):
                raise LptError(
                    f"task.template={self.text!r} alone takes {length} tokens, more than "
                    f"task.max_length={self.max_length + len(self.answers)}; "
                    "raise task.max_length or shorten the template"
                )
            for _ in range(length - self.max_length):
                longest = keep.index(max(keep))
                keep[longest] = max(keep[longest] - 1, 0)
            # Where the first token to go starts: several tokens may share a character, such as an emoji, and end alike.
            # At least one character goes, so that this comes to an end.
            sentences = tuple(
                s[: min(o[k], len(s) - 1)] if k < len(o) else s for s, o, k in zip(sentences, starts, keep, strict=True)
            )
            row = self._tokenize([sentences])[0]
            # Cut text may split into other tokens than before, so look again.
            length = len(row.input_ids)
            if length <= self.max_length:
                return Encoded(row.input_ids, row.readout_position, truncated=True)

    def _token_starts(self, text: str) -> list[int]:
        """The character at which each token of a text begins."""
        if self.literal.needed(text):
            offsets = self.literal.encode(text, add_special_tokens=False)[1]
        else:
            tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            offsets = tokens["offset_mapping"]
        return [start for start, _ in offsets]


def template_fields(text: str) -> list[str]:
    """Return the names of the `{fields}` of a template, in order.

    Raises:
        LptError: unbalanced braces.
    """
    return [field for _, field in _parse(text) if field is not None]


def _parse(text: str) -> list[tuple[str, str | None]]:
    """A template as (text, the field after it); a field with a `!` or `:` part keeps it, as an unknown name."""
    try:
        return [
            (literal, None if name is None else name + (f"!{how}" if how else "") + (f":{spec}" if spec else ""))
            for literal, name, spec, how in Formatter().parse(text)
        ]
    except ValueError as error:
        raise LptError(f"task.template={text!r} cannot be read: {error}") from None


def check_template(text: str, causal: bool) -> None:
    """Check that a template has the fields that its kind of backbone needs.

    Args:
        text: the template.
        causal: whether the backbone is a decoder.

    Raises:
        LptError: an unknown field, `{a}` missing, `{mask}` missing, repeated or out of place, a space at the end of
            a decoder's template.
    """
    kind = "decoder" if causal else "encoder"
    fields = template_fields(text)
    problem = None
    unknown = [name for name in fields if name not in ("a", "b", "mask")]
    if unknown:
        problem = f"has the unknown field {{{unknown[0]}}}; use {{a}}, {{b}} and, for encoders, {{mask}}"
    elif "a" not in fields:
        problem = "has no {a} for the text"
    elif causal and "mask" in fields:
        problem = "has a {mask}, but a decoder answers after the template's end"
    elif causal and text != text.rstrip():
        problem = "ends with a space; the label word brings its own (task.template.space)"
    elif not causal and fields.count("mask") != 1:
        problem = "must contain {mask} exactly once"
    if problem:
        raise LptError(f"task.template.{kind}={text!r} {problem}")


def label_word_ids(tokenizer: Any, words: dict[str, str], labels: list[str], space: bool = True) -> list[int]:
    """Return one token id per class: that of its label word, with a leading space where the tokenizer has one.

    Args:
        tokenizer: a Hugging Face tokenizer.
        words: label name -> word.
        labels: names in class order.
        space: whether the word follows after a space.

    Raises:
        LptError: a class without word, a word of several tokens or unknown to the tokenizer (shows how each
            splits), or two classes with the same token.
    """
    check_label_words(words, labels)
    ids, bad = [], []
    for name in labels:
        pieces = _pieces(tokenizer, words[name], space)
        ids += [tokenizer.convert_tokens_to_ids(piece) for piece in pieces[:1]]
        if len(pieces) != 1:
            bad.append(f"{name}: {words[name]!r} splits into {' + '.join(map(repr, pieces)) or 'nothing'}")
        elif ids[-1] == tokenizer.unk_token_id:
            bad.append(f"{name}: {words[name]!r} is unknown to the tokenizer")
    if bad:
        raise LptError(
            f"task.label_words must be single tokens of this backbone's tokenizer; {'; '.join(bad)}. Choose other words"
            ", or use head=continuation with a decoder"
        )
    for i, token in enumerate(ids):
        if token in ids[:i]:
            other = labels[ids.index(token)]
            raise LptError(f"task.label_words gives {labels[i]!r} and {other!r} the same token {words[labels[i]]!r}")
    return ids


def answer_ids(
    tokenizer: Any, words: dict[str, str], labels: list[str], answer: str, space: bool = True
) -> list[list[int]]:
    """Return the token ids of each class's complete answer, which follows a decoder's template.

    Args:
        tokenizer: a Hugging Face tokenizer.
        words: label name -> word or words.
        labels: names in class order.
        answer: the text with `{word}` in it.
        space: whether it follows after a space.

    Raises:
        LptError: a class without word, a word unknown to the tokenizer, two classes with the same answer, or an
            `answer` without `{word}`.
    """
    check_label_words(words, labels)
    if template_fields(answer) != ["word"]:
        raise LptError(f"task.template.answer={answer!r} must contain {{word}} exactly once, and no other field")
    ids = []
    for name in labels:
        ids.append(tokenizer.convert_tokens_to_ids(_pieces(tokenizer, answer.format(word=words[name].strip()), space)))
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids[-1]:
            raise LptError(f"task.label_words: the word {words[name]!r} for {name!r} is unknown to the tokenizer")
        if ids[-1] in ids[:-1]:
            other = labels[ids.index(ids[-1])]
            raise LptError(f"task.label_words gives {name!r} and {other!r} the same answer {words[name]!r}")
    return ids


def check_label_words(words: dict[str, str], labels: list[str]) -> None:
    """Check that every class has a label word.

    Raises:
        LptError: names the classes without one.
    """
    missing = [name for name in labels if not words.get(name, "").strip()]
    if missing:
        raise LptError(
            f"task.label_words lacks a word for {', '.join(map(repr, missing))}; give one for each of {labels}, "
            "or use head=linear"
        )


def _pieces(tokenizer: Any, text: str, space: bool) -> list[str]:
    """Tokens of a text that follows another, after a space or directly."""
    # Some tokenizers put a space of their own in front of a whole text, and so something stands before.
    before = "a " if space else "\u3002"  # the ideographic full stop is part of no word
    pieces: list[str] = tokenizer.tokenize(before + text.strip())
    return pieces[len(tokenizer.tokenize(before.strip())) :]
